// Verifies each token through its set, and prints what failed: both as JSON.
import { createLocalJWKSet, jwtVerify } from 'jose'
import { readFileSync } from 'node:fs'

const failures = []
for (const { stem, token, set } of JSON.parse(readFileSync(0))) {
  try {
    await jwtVerify(token, createLocalJWKSet(set))
  } catch (error) {
    failures.push(`${stem}: jose: ${error}`)
  }
}
console.log(JSON.stringify(failures))
