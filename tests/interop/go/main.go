// Go's clients, one program: the library to use is its argument. The protocol is that of every
// client program here: one JSON request a line on stdin, one answer a line on stdout, in any order.
// A request names its verifier, which is made when it is first named and keeps its own cache.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

type request struct {
	ID       int      `json:"id"`
	Verifier string   `json:"verifier"`
	Issuer   string   `json:"issuer"`
	URL      string   `json:"url"`
	TTL      *float64 `json:"ttl"`
	Token    string   `json:"token"`
}

type answer struct {
	ID     int            `json:"id"`
	OK     bool           `json:"ok"`
	Claims map[string]any `json:"claims,omitempty"`
	Error  string         `json:"error,omitempty"`
}

type verify func(ctx context.Context, token string) (map[string]any, error)

// A verifier for an issuer and the URL of its JWK Set; a ttl of 0 leaves the library's defaults.
type makeVerifier func(issuer, url string, ttl time.Duration) (verify, error)

var libraries = map[string]makeVerifier{"go-oidc": goOIDC, "jwx": jwx, "keyfunc": keyfuncs}

var algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// A verifier that is made once, by whoever comes first.
type slot struct {
	sync.Mutex
	verify verify
}

func (s *slot) get(make makeVerifier, r request) (verify, error) {
	s.Lock()
	defer s.Unlock()
	if s.verify == nil {
		var ttl time.Duration
		if r.TTL != nil {
			ttl = time.Duration(*r.TTL * float64(time.Second))
		}
		made, err := make(r.Issuer, r.URL, ttl)
		if err != nil {
			return nil, err
		}
		s.verify = made
	}
	return s.verify, nil
}

func main() {
	library, ok := libraries[os.Args[1]]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such library:", os.Args[1])
		os.Exit(2)
	}
	var output sync.Mutex
	encoder := json.NewEncoder(os.Stdout)
	slots := map[string]*slot{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if slots[r.Verifier] == nil {
			slots[r.Verifier] = &slot{}
		}
		s := slots[r.Verifier]
		go func() {
			a := answer{ID: r.ID}
			verify, err := s.get(library, r)
			if err == nil {
				a.Claims, err = verify(context.Background(), r.Token)
			}
			if a.OK = err == nil; err != nil {
				a.Error = err.Error()
			}
			output.Lock()
			defer output.Unlock()
			_ = encoder.Encode(a)
		}()
	}
}
