// jwks-rsa finds the key by its kid, jsonwebtoken verifies with it. jsonwebtoken knows no EdDSA, so
// those tokens are verified by jose, with the key that jwks-rsa found.
import { createPublicKey } from 'node:crypto'
import { decodeProtectedHeader, jwtVerify } from 'jose'
import jwt from 'jsonwebtoken'
import jwksClient from 'jwks-rsa'
import { serve } from './lines.mjs'

serve(({ issuer, url, ttl }) => {
  // By default it caches 5 kids, fewer than there are here.
  const lifetime = ttl === null ? {} : { cacheMaxAge: ttl * 1000 }
  const client = jwksClient({ jwksUri: url, cacheMaxEntries: 100, ...lifetime })
  return async (token) => {
    const { kid, alg } = decodeProtectedHeader(token)
    const pem = (await client.getSigningKey(kid)).getPublicKey()
    if (alg !== 'EdDSA') return jwt.verify(token, pem, { issuer, algorithms: [alg] })
    return (await jwtVerify(token, createPublicKey(pem), { issuer, algorithms: [alg] })).payload
  }
})
