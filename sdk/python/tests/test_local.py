"""What the server is told, and the program."""

import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import lyra_session
from lyra_session._connection import parse_address
from lyra_session._local import Local


def opened(name: str = "a") -> Local:
    local = Local()
    local.begin()
    local.hear({"sequence": 1, "welcome": {"stream": 1, "max_clients": 3}})
    local.hear({"sequence": 2, "open": {"session": {"id": name}, "data": "map=1", "timeout_ms": 5_000}})
    return local


class LocalTest(unittest.TestCase):
    def test_only_the_difference_is_told(self):
        local = opened()
        local.advance("open")
        self.assertEqual([local.join(name) for name in "xyzw"], [True, True, True, False])
        local.leave("x")
        state, clients = local.unsaid()
        self.assertEqual((state["sequence"], state["state"]["phase"]), (1, "open"))
        self.assertEqual((clients["clients"]["joined"], clients["clients"]["left"]), (["y", "z"], []))
        local.leave("y")
        local.join("y")
        self.assertFalse(local.has_unsaid())

    def test_a_new_stream_is_told_everything(self):
        local = opened()
        local.advance("open")
        local.join("x")
        hello = local.begin()
        self.assertEqual((hello["state"]["phase"], hello["clients"]), ("open", ["x"]))
        self.assertFalse(local.has_unsaid())
        local.hear({"sequence": 1, "welcome": {"stream": 2, "max_clients": 3}})
        local.hear({"sequence": 2, "resync": {}})
        (again,) = local.unsaid()
        self.assertEqual((again["stream"], again["sequence"], again["hello"]["clients"]), (2, 1, ["x"]))

    def test_nothing_is_told_twice_to_the_program(self):
        local = opened()
        local.hear({"sequence": 3, "open": {"session": {"id": "a"}, "data": "", "timeout_ms": 1}})
        for grace in (20_000, 10_000):
            local.hear({"sequence": 4, "close": {"session": "a", "grace_ms": grace}})
        self.assertEqual([(kind, more) for kind, _, more in local.told], [("open", None), ("close", 10.0)])
        local.advance("closed")
        local.advance("open")
        self.assertEqual(local.phase, "closed")

    def test_a_session_that_is_not_there_is_closed(self):
        local = Local()
        local.begin()
        local.hear({"sequence": 1, "welcome": {"stream": 1, "max_clients": 3}})
        local.hear({"sequence": 2, "close": {"session": "z", "grace_ms": 0}})
        self.assertEqual(local.unsaid()[0]["state"], {"session": "z", "phase": "closed"})


class EnvironmentTest(unittest.TestCase):
    def test_addresses_are_understood(self):
        self.assertEqual(parse_address("127.0.0.1:9003"), ("127.0.0.1", 9003))
        self.assertEqual(parse_address("http://[::1]:80/"), ("::1", 80))
        self.assertEqual(parse_address("unix:/run/s"), "/run/s")
        for bad in ("", "unix:", "localhost", ":80", "host:99999"):
            with self.assertRaisesRegex(ValueError, "no address"):
                parse_address(bad)

    def test_a_program_that_is_no_instance_is_told_so(self):
        with mock.patch.dict("os.environ", clear=True):
            with self.assertRaisesRegex(RuntimeError, "LYRA_SESSION_ADDRESS is not set"):
                lyra_session.connect()
            with self.assertRaisesRegex(RuntimeError, "LYRA_SESSION_DIR is not set"):
                lyra_session.Directory()

    def test_the_directory_is_read(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            (path / "session.json").write_text(json.dumps({"id": "a", "data": {"base64": "/wA="}}))
            for name in ("config", "secrets"):
                (path / name).mkdir()
            (path / "config" / "mode").write_text("easy")
            (path / "config" / ".new").write_text("half")
            (path / "secrets" / "key").write_bytes(b"k")
            directory = lyra_session.Directory(path)
            self.assertEqual(directory.session()["data"], b"\xff\x00")
            self.assertEqual(directory.configuration(), {"mode": "easy"})
            self.assertEqual(directory.secret("key"), b"k")


if __name__ == "__main__":
    unittest.main()
