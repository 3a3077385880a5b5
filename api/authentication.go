package api

import (
	"errors"
	"net/http"
	"slices"
	"strings"
)

// maxKey is the longest credential that is looked at, in bytes.
const maxKey = 256

// authenticated calls next with the owner of the request's API key, which must have scope.
func (s *server) authenticated(scope Scope, next func(http.ResponseWriter, *http.Request, Caller) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		caller, err := s.authenticate(r)
		if err != nil {
			return err
		}
		x := exchangeOf(r)
		x.keyID, x.merchant = caller.KeyID, caller.MerchantID
		if err := s.bucketsOf(scope).take(w, caller.KeyID); err != nil {
			return err
		}
		if !slices.Contains(caller.Scopes, scope) {
			return ErrForbidden.With("This route wants a key with the scope %q.", scope)
		}
		return next(w, r, caller)
	}
}

// bucketsOf returns what bounds the requests of a key: a payment is a shopper's, a token may be one of millions.
func (s *server) bucketsOf(scope Scope) *buckets {
	if scope == ScopeTokens {
		return s.perTokenKey
	}
	return s.perKey
}

// authenticate finds the caller. Addresses that failed too often are not even looked up, so that guessing costs the
// HSM and the record of refusals nothing.
func (s *server) authenticate(r *http.Request) (Caller, error) {
	origin := originOf(r)
	if err := s.failedLogins.check(network(origin)); err != nil {
		return Caller{}, err
	}
	key, ok := bearer(r)
	if !ok {
		s.failedLogins.of(network(origin)).AllowN(s.cfg.Now(), 1)
		return Caller{}, ErrUnauthorized
	}
	caller, err := s.cfg.Keys.Caller(r.Context(), key, origin)
	if errors.Is(err, ErrUnauthorized) {
		s.failedLogins.of(network(origin)).AllowN(s.cfg.Now(), 1)
	}
	if err != nil {
		return Caller{}, err
	}
	caller.Origin = origin
	return caller, nil
}

// bearer returns the credential of the one Authorization header (RFC 6750 section 2.1).
func bearer(r *http.Request) (string, bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, key, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || key == "" || len(key) > maxKey {
		return "", false
	}
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			return "", false
		}
	}
	return key, true
}
