"""The protocol of every client program: one JSON request a line on stdin, one answer a line on
stdout, in any order. A request names its verifier, which is made when it is first named, keeps its
own cache, and lives as long as the program."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
              "EdDSA"]


def serve(make_verifier):
    verifiers = {}

    def answer(request, verify):
        try:
            reply = {"ok": True, "claims": verify(request["token"])}
        except Exception as error:  # whatever a library raises is its answer
            reply = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps({"id": request["id"], **reply}) + "\n")
        sys.stdout.flush()

    with ThreadPoolExecutor(8) as pool:
        for line in sys.stdin:
            request = json.loads(line)
            name = request["verifier"]
            if name not in verifiers:
                verifiers[name] = make_verifier(request["issuer"], request["url"], request["ttl"])
            pool.submit(answer, request, verifiers[name])
