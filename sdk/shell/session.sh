#!/usr/bin/env bash
# A session in a shell, with curl and no library: keeps the session's data in a file while it is open.
#
# Shows the JSON form of the protocol (docs/reference/session-sdk.md). It attaches anew when its stream breaks, and answers pings.
set -euo pipefail

board=${BOARD:-board.txt}
phase=none
session=

case $LYRA_SESSION_ADDRESS in
unix:*) server=(--unix-socket "${LYRA_SESSION_ADDRESS#unix:}" http://session) ;;
*) server=("http://$LYRA_SESSION_ADDRESS") ;;
esac

say() { curl --silent --fail --max-time 5 --data "$1" "${server[@]}/v1/session/state" >/dev/null || true; }
state() {
    phase=$1
    say "{\"state\":{\"session\":\"$session\",\"phase\":\"$phase\"}}"
}
# The first value of a field that is a plain string or a number.
field() { grep -oE "\"$2\":\"?[^\",}]*" <<<"$1" | head -n 1 | sed -E 's/^[^:]*:"?//'; }

hear() {
    case $1 in
    *'"ping":{'*) say "{\"pong\":{\"number\":$(field "$1" number)}}" ;;
    *'"open":{'*)
        session=$(field "$1" id)
        field "$1" data >"$board"
        state open
        ;;
    *'"close":{'*)
        rm -f "$board"
        state closed
        ;;
    esac
}

while :; do
    hello="{\"sdk\":\"shell\",\"state\":{\"session\":\"$session\",\"phase\":\"$phase\"}}"
    while IFS= read -r line; do
        hear "$line"
    done < <(curl --silent --no-buffer --fail --data "$hello" "${server[@]}/v1/session/stream")
    sleep 0.2
done
