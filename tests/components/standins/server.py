"""Stands in for the policy server: health, metrics under the real names, and failures on demand."""

import http.server
import json
import os
import sys
import time
from pathlib import Path

MAPPING, PORT_FILE = map(Path, sys.argv[1:])
METRICS = ("policy_requests_total", "policy_errors_total", "policy_batch_size_count")
COUNTS = dict.fromkeys((*METRICS, "policy_network_seconds_count"), 0)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer, status = "OK", 200
        if self.path == "/metrics":
            answer = "".join(f"# TYPE {name}\n{name} {float(count)}\n" for name, count in COUNTS.items())
        elif self.path == "/pid":
            answer = str(os.getpid())
        elif self.path == "/die":
            os._exit(1)
        elif self.path == "/act":
            for name in ("policy_batch_size_count", "policy_network_seconds_count", "policy_requests_total"):
                COUNTS[name] += 1
        elif self.path == "/stuck":  # in the network; health and metrics go on
            COUNTS["policy_batch_size_count"] += 1
            time.sleep(1000)
        elif self.path == "/error":
            COUNTS["policy_errors_total"] += 1
            status = 500
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        pass


(entry,) = json.loads(MAPPING.read_text())["checkpoints"].values()
assert Path(entry["path"]).is_dir(), entry
assert entry["tasks"] == ["turning_on_radio"], entry
if (Path(__file__).parent / "broken").exists():
    sys.exit("cannot load the checkpoint")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
aside = PORT_FILE.with_suffix(".aside")
aside.write_text(f"{server.server_port}\n")
aside.rename(PORT_FILE)
server.serve_forever()
