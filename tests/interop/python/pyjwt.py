"""PyJWT as its documentation shows it: PyJWKClient finds the key, jwt.decode verifies with it."""

import jwt

from lines import ALGORITHMS, serve


def make_verifier(issuer, url, ttl):
    client = jwt.PyJWKClient(url, **({} if ttl is None else {"lifespan": ttl}))

    def verify(token):
        key = client.get_signing_key_from_jwt(token)
        # The audience is each lane's own; who wants to check it names it here.
        return jwt.decode(token, key, algorithms=ALGORITHMS, issuer=issuer,
                          options={"verify_aud": False})

    return verify


serve(make_verifier)
