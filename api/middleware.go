package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"
)

// exchange is what the handlers and the log share of one request.
type exchange struct {
	id       string // random; in the log and in the Request-Id header
	route    string // template of the path; empty when there is no such route
	keyID    string // of the API key, once it is known
	merchant string
}

type exchangeKey struct{}

// exchangeOf returns the exchange of a request that went through [server.identify].
func exchangeOf(r *http.Request) *exchange {
	x, ok := r.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		return new(exchange)
	}
	return x
}

func (s *server) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{id: rand.Text()}
		w.Header().Set("Request-Id", x.id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
	})
}

// logAccess writes one line for each request: no path, no query, no header, no body.
func (s *server) logAccess(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		seen := &statusWriter{ResponseWriter: w}
		defer func() {
			x := exchangeOf(r)
			s.cfg.Logger.InfoContext(r.Context(), "request", "request_id", x.id, "method", knownMethod(r.Method),
				"route", x.route, "status", seen.status, "duration", time.Since(began), "merchant", x.merchant, "key", x.keyID)
		}()
		next.ServeHTTP(seen, r)
	})
}

// knownMethod keeps what a caller made up out of the log.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// recoverPanics answers 500 for a handler that panicked. Of the panic it logs the stack and, unless the runtime
// raised it, the type only: a value could quote anything.
func (s *server) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v)
			}
			what := fmt.Sprintf("%T", v)
			if e, ok := v.(runtime.Error); ok {
				what = e.Error()
			}
			s.cfg.Logger.ErrorContext(r.Context(), "handler panicked", "request_id", exchangeOf(r).id, "panic", what, "stack", string(debug.Stack()))
			if seen, ok := w.(*statusWriter); ok && seen.status != 0 {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			s.answerProblem(w, r, ErrInternal)
		}()
		next.ServeHTTP(w, r)
	})
}

// secure sets the headers that hold for every answer; the checkout page sets a policy of its own.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if r.TLS != nil { // RFC 6797 section 7.2: never over plain HTTP
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// statusWriter remembers the status of an answer; 0 until one was sent.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx are not the answer
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// originOf returns the client's IP address. Headers that claim another one are not believed: anyone can send them.
func originOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
