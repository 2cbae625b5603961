"""cryptojwt as its documentation shows it: a KeyJar with a bundle of keys from a URL, and JWT.unpack. A kid
that the bundle does not know is no reason to fetch it anew."""

from threading import Lock

from cryptojwt.jwt import JWT
from cryptojwt.key_bundle import KeyBundle
from cryptojwt.key_jar import KeyJar

from lines import ALGORITHMS, serve


def make_verifier(issuer, url, ttl):
    lifetime = {} if ttl is None else {"cache_time": ttl}
    jar = KeyJar()
    jar.add_kb(issuer, KeyBundle(source=url, fileformat="jwks", **lifetime))
    jwt = JWT(key_jar=jar, allowed_sign_algs=ALGORITHMS)

    # A bundle says that it is up to date before its first keys are there.
    one_at_a_time = Lock()

    def verify(token):
        with one_at_a_time:
            claims = jwt.unpack(token)
        if claims["iss"] != issuer:
            raise ValueError("another issuer")
        return dict(claims)

    return verify


serve(make_verifier)
