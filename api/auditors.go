package api

import (
	"context"
	"crypto/x509"
	"time"
)

// Auditors knows the people who may look at the log, one named person each: by a link that is opened once and becomes a session,
// or by a certificate that was registered for them. What is unknown, over or used up is [ErrUnauthorized]; the refusal is
// recorded.
type Auditors interface {
	// Open uses a link up and begins its session.
	Open(ctx context.Context, link, origin string) (session string, until time.Time, err error)
	// Session returns who holds a session.
	Session(ctx context.Context, session, origin string) (Person, error)
	// Certified returns whose certificate it is. That its holder has the key is for TLS to see to.
	Certified(ctx context.Context, certificate *x509.Certificate, origin string) (Person, error)
	// Leave ends a session.
	Leave(ctx context.Context, session, origin string) error
}

// Person is an auditor at a browser.
type Person struct {
	Viewer
	Name  string // for their own eyes; entries have the id
	Until time.Time
}
