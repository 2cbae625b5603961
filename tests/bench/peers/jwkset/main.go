// A publisher made of jwkset as the server of its examples is: a memory storage, whose public JSON is
// made for every request. The arguments are a directory of private keys in PEM and where to listen.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"

	"github.com/MicahParks/jwkset"
)

// The JWK of an RSA key with the members that jwksd gives it: its id is its thumbprint (RFC 7638).
func jwkOf(file string) (jwkset.JWK, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return jwkset.JWK{}, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return jwkset.JWK{}, fmt.Errorf("%s: no PEM block", file)
	}
	key, err := jwkset.LoadX509KeyInfer(block)
	if err != nil {
		return jwkset.JWK{}, err
	}
	metadata := jwkset.JWKMetadataOptions{ALG: jwkset.AlgRS256, USE: jwkset.UseSig}
	jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: metadata})
	if err != nil {
		return jwkset.JWK{}, err
	}
	members := jwk.Marshal()
	sum := sha256.Sum256([]byte(fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, members.E, members.N)))
	metadata.KID = base64.RawURLEncoding.EncodeToString(sum[:])
	return jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: metadata})
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: jwkset DIRECTORY ADDRESS")
	}
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*.pem"))
	if err != nil {
		log.Fatal(err)
	}
	set := jwkset.NewMemoryStorage()
	for _, file := range files {
		jwk, err := jwkOf(file)
		if err != nil {
			log.Fatal(err)
		}
		if err := set.KeyWrite(context.Background(), jwk); err != nil {
			log.Fatal(err)
		}
	}
	http.HandleFunc("/.well-known/jwks.json", func(writer http.ResponseWriter, request *http.Request) {
		body, err := set.JSONPublic(request.Context())
		if err != nil {
			http.Error(writer, err.Error(), http.StatusInternalServerError)
			return
		}
		writer.Header().Set("Content-Type", "application/json")
		_, _ = writer.Write(body)
	})
	log.Fatal(http.ListenAndServe(os.Args[2], nil))
}
