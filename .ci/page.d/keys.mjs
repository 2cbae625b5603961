// Key directories for the page to show: everyday ones, none, forty, and one of hostile names.
import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const HOUR = 3600_000;
const DAY = 24 * HOUR;
const ago = (span) => new Date(Date.now() - span).toISOString();
const ahead = (span) => new Date(Date.now() + span).toISOString();

const KINDS = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  ES384: ['ec', { namedCurve: 'P-384' }],
  ES512: ['ec', { namedCurve: 'P-521' }],
  EdDSA: ['ed25519', {}],
};

// Writes `name` into `directory`: its attributes first, both by rename.
function put(directory, name, algorithm, attributes) {
  const pair = generateKeyPairSync(...KINDS[algorithm]);
  const pem = pair.privateKey.export({ type: 'pkcs8', format: 'pem' });
  const meta = JSON.stringify({ keyId: name, algorithm, ...attributes });
  mkdirSync(directory, { recursive: true });
  for (const [file, text] of [[`${name}.meta.json`, meta], [`${name}.pem`, pem]]) {
    writeFileSync(join(directory, '.new'), text);
    renameSync(join(directory, '.new'), join(directory, file));
  }
}

export function everyday(directory) {
  const in_grace = { validFrom: ago(60 * DAY), invalidatedAt: ago(HOUR), gracePeriodSec: 4 * 3600 };
  put(directory, 'client-2026-09', 'RS256', { ...in_grace, audience: 'client' });
  put(directory, 'client-2026-10', 'PS256', {
    audience: 'client', validFrom: ago(2 * HOUR), validTo: ahead(60 * DAY),
    invalidatedAt: ahead(20 * HOUR), gracePeriodSec: 4020,
  });
  put(directory, 'client-2026-11', 'ES256', { audience: 'client', validFrom: ahead(20 * HOUR) });
  put(directory, 'client-2026-12', 'ES384', { audience: 'client', validFrom: ahead(3 * DAY) });
  put(directory, 'human-a', 'EdDSA', { audience: 'human', validTo: ahead(300 * DAY) });
  put(directory, 'human-b', 'ES512', {
    audience: 'human', validFrom: ago(9 * DAY), invalidatedAt: ago(HOUR / 2), gracePeriodSec: 3600,
  });
  put(directory, 'human-ended', 'ES256', { audience: 'human', validFrom: ago(9 * DAY), validTo: ago(DAY) });
  writeFileSync(join(directory, 'client-2026-13.pem'), '-----BEGIN PRIVATE KEY-----\nMIIE');
  writeFileSync(join(directory, 'shared-secret.json'), '{"kty":"oct","k":"c2VjcmV0"}');
}

export function hostile(directory) {
  put(directory, 'ordinary', 'ES256', {});
  put(directory, 'long', 'ES256', { keyId: 'an-uncommonly-long-kid-'.repeat(11) + 'end' });
  put(directory, 'unbroken', 'ES256', { keyId: 'W'.repeat(256) });
  put(directory, 'tags', 'ES256', { keyId: '"><script>alert("kid")</script><img src=x onerror=alert(1)>' });
  put(directory, 'quotes', 'ES256', { keyId: `' onload='alert(1) " style="color:red" \\ &amp; \${x}` });
  for (const name of [
    '<script>alert("file")<\u2215script>', '"><img src=x onerror=alert(2)>', "' onmouseover='alert(3)",
    'javascript:alert(4)', '\u202egnp.dne-ot-thgir', 'line\nbreak', '&lt;b&gt;', '</title><\u2215svg>', 'X'.repeat(200),
  ]) {
    writeFileSync(join(directory, `${name.replaceAll('/', '\u2215')}.pem`), 'nothing');
  }
}

export function forty(directory) {
  for (let i = 0; i < 40; i++) {
    const number = String(i).padStart(2, '0');
    const attributes = { audience: i % 2 ? 'human' : 'client', validFrom: ago((40 - i) * 2 * HOUR) };
    if (i % 5 === 0) attributes.invalidatedAt = ago(HOUR * (i / 40));
    if (i % 5 === 0) attributes.gracePeriodSec = 7200 + i * 60;
    if (i % 7 === 3) attributes.validFrom = ahead(i * HOUR / 2);
    put(directory, `key-${number}`, 'ES256', attributes);
  }
}

export function empty(directory) {
  mkdirSync(directory, { recursive: true });
}
