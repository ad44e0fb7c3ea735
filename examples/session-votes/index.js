// A poll as a session: what the handler keeps in memory is the session's own, from open to close.
//
//   lyra deploy examples/session-votes --name votes
//   lyra app apply -f examples/session-votes/application.yaml
//   lyra session open votes --name lunch
//   curl -X POST http://127.0.0.1:8080/s/default/lunch/pizza
const votes = {};

export default function handler(event) {
  const { method, path } = event.requestContext.http;
  if (method === "POST") {
    const choice = path.slice(1);
    if (!/^[a-z]{1,20}$/.test(choice)) {
      return { statusCode: 400, body: JSON.stringify({ error: "vote for a word: POST /pizza" }) };
    }
    votes[choice] = (votes[choice] ?? 0) + 1;
  }
  return { poll: event.session.name, votes };
}
