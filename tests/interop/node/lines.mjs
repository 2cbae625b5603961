// The protocol of every client program: one JSON request a line on stdin, one answer a line on
// stdout, in any order. A request names its verifier, which is made when it is first named, keeps
// its own cache, and lives as long as the program.
import { createInterface } from 'node:readline'

export function serve(makeVerifier) {
  const verifiers = new Map()
  createInterface({ input: process.stdin }).on('line', async (line) => {
    const { id, verifier, issuer, url, ttl, token } = JSON.parse(line)
    let answer
    try {
      if (!verifiers.has(verifier)) verifiers.set(verifier, makeVerifier({ issuer, url, ttl }))
      answer = { id, ok: true, claims: await verifiers.get(verifier)(token) }
    } catch (error) {
      answer = { id, ok: false, error: `${error.name}: ${error.message}` }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  })
}
