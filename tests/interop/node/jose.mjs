// jose as its documentation shows it: createRemoteJWKSet and jwtVerify.
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { serve } from './lines.mjs'

serve(({ issuer, url, ttl }) => {
  const keys = createRemoteJWKSet(new URL(url), ttl === null ? {} : { cacheMaxAge: ttl * 1000 })
  return async (token) => (await jwtVerify(token, keys, { issuer })).payload
})
