"""joserfc has no fetcher. Here it stands behind an HTTP cache that goes by Cache-Control and
nothing else (requests with CacheControl): the consumer that HTTP had in mind."""

import threading

import requests
from cachecontrol import CacheControl
from joserfc import jwt
from joserfc.jwk import KeySet

from lines import ALGORITHMS, serve


def make_verifier(issuer, url, _ttl):
    session = CacheControl(requests.Session())
    claims = jwt.JWTClaimsRegistry(iss={"essential": True, "value": issuer})
    one_at_a_time = threading.Lock()

    def verify(token):
        with one_at_a_time:
            response = session.get(url, timeout=5)
        response.raise_for_status()
        decoded = jwt.decode(token, KeySet.import_key_set(response.json()), algorithms=ALGORITHMS)
        claims.validate(decoded.claims)
        return decoded.claims

    return verify


serve(make_verifier)
