package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxt "github.com/lestrrat-go/jwx/v3/jwt"
)

// go-oidc from the discovery document. Its key set has no lifetime: it is fetched anew when a token
// does not verify.
func goOIDC(issuer, _ string, _ time.Duration) (verify, error) {
	provider, err := oidc.NewProvider(context.Background(), issuer)
	if err != nil {
		return nil, err
	}
	verifier := provider.Verifier(&oidc.Config{SkipClientIDCheck: true})
	return func(ctx context.Context, token string) (map[string]any, error) {
		verified, err := verifier.Verify(ctx, token)
		if err != nil {
			return nil, err
		}
		var claims map[string]any
		return claims, verified.Claims(&claims)
	}, nil
}

// jwx with its jwk.Cache, which goes by Cache-Control between a floor (15 min) and a ceiling.
func jwx(issuer, url string, ttl time.Duration) (verify, error) {
	ctx := context.Background()
	cache, err := jwk.NewCache(ctx, httprc.NewClient())
	if err != nil {
		return nil, err
	}
	var options []jwk.RegisterOption
	if ttl != 0 {
		options = append(options, jwk.WithMinInterval(ttl))
	}
	if err := cache.Register(ctx, url, options...); err != nil {
		return nil, err
	}
	set, err := cache.CachedSet(url)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, token string) (map[string]any, error) {
		verified, err := jwxt.Parse([]byte(token), jwxt.WithKeySet(set), jwxt.WithIssuer(issuer))
		if err != nil {
			return nil, err
		}
		encoded, err := json.Marshal(verified)
		if err != nil {
			return nil, err
		}
		var claims map[string]any
		return claims, json.Unmarshal(encoded, &claims)
	}, nil
}

// keyfunc for golang-jwt: refreshed each hour, and for an unknown kid once in 5 minutes.
func keyfuncs(issuer, url string, ttl time.Duration) (verify, error) {
	override := keyfunc.Override{RefreshInterval: ttl}
	keys, err := keyfunc.NewDefaultOverrideCtx(context.Background(), []string{url}, override)
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(jwt.WithValidMethods(algorithms), jwt.WithIssuer(issuer))
	return func(ctx context.Context, token string) (map[string]any, error) {
		claims := jwt.MapClaims{}
		_, err := parser.ParseWithClaims(token, claims, keys.KeyfuncCtx(ctx))
		return claims, err
	}, nil
}
