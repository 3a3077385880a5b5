package auditor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// Bounds of what an operator grants.
const (
	MaxLink        = 30 * 24 * time.Hour
	MaxCertificate = 397 * 24 * time.Hour
	maxName        = 100 // characters
)

// resource stands in entries about refusals.
const resource = "audit"

// secretHash is what is stored of a secret: it has 256 random bits, so that its hash tells nothing of it.
func secretHash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	return base64.RawURLEncoding.EncodeToString(secret)
}

// Link makes a single-use link for a named person, and returns its secret, which is not kept.
func (s *Service) Link(ctx context.Context, by ledger.Operator, name string, lasts time.Duration) (secret string, g store.AuditorGrant, err error) {
	if lasts < time.Minute || lasts > MaxLink {
		return "", g, fmt.Errorf("a link lasts from a minute to %s", MaxLink)
	}
	secret = newSecret()
	g = store.AuditorGrant{Kind: store.GrantLink, Hash: secretHash(secret)}
	g, err = s.grant(ctx, by, name, lasts, g, "auditor.link_created", nil)
	return secret, g, err
}

// Certificate registers the certificate of a named person. It is known by its public key; who has signed it does not
// matter.
func (s *Service) Certificate(ctx context.Context, by ledger.Operator, name string, certificate *x509.Certificate, lasts time.Duration) (g store.AuditorGrant, err error) {
	if lasts < time.Minute || lasts > MaxCertificate {
		return g, fmt.Errorf("a certificate is good from a minute to %s", MaxCertificate)
	}
	g = store.AuditorGrant{Kind: store.GrantCertificate, Hash: certificateHash(certificate)}
	if _, err := s.cfg.Store.Read(ctx).GrantOf(g.Kind, g.Hash); !errors.Is(err, store.ErrNotFound) {
		return g, errors.Join(errors.New("this certificate's key was registered before: a new one is wanted"), err)
	}
	return s.grant(ctx, by, name, lasts, g, "auditor.certificate_registered", map[string]any{"key": hex.EncodeToString(g.Hash)})
}

func certificateHash(c *x509.Certificate) []byte {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return sum[:]
}

func (s *Service) grant(ctx context.Context, by ledger.Operator, name string, lasts time.Duration, g store.AuditorGrant, kind string, data map[string]any) (store.AuditorGrant, error) {
	if name = strings.TrimSpace(name); name == "" || utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) || pci.LooksLikePAN(name) {
		return g, fmt.Errorf("a name of 1 to %d printable characters is wanted", maxName)
	}
	now := s.cfg.Now().UTC()
	g.ID, g.CreatedAt, g.ExpiresAt = store.NewID("agr"), now, now.Add(lasts)
	fresh := store.NewID("aud")
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		known, err := tx.AuditorNamed(name)
		if errors.Is(err, store.ErrNotFound) {
			known = store.Auditor{ID: fresh, Name: name, CreatedAt: now}
			err = tx.PutAuditor(known)
		}
		if err != nil {
			return err
		}
		g.AuditorID = known.ID
		if err := tx.PutGrant(g); err != nil {
			return err
		}
		e := by.Entry(kind, g.AuditorID, map[string]any{"grant": g.ID, "until": g.ExpiresAt.Format(time.RFC3339)})
		for name, value := range data {
			e.Data[name] = value
		}
		tx.Record(e)
		return nil
	})
	return g, err
}

// Granted is what an auditor was given, and what they are called.
type Granted struct {
	store.AuditorGrant
	Name string // empty where it was deleted
}

// List returns all that was granted, oldest first.
func (s *Service) List(ctx context.Context) ([]Granted, error) {
	read := s.cfg.Store.Read(ctx)
	grants, err := read.Grants()
	list := make([]Granted, len(grants))
	for i, g := range grants {
		list[i].AuditorGrant = g
		known, nameErr := read.Auditor(g.AuditorID)
		if nameErr != nil && !errors.Is(nameErr, store.ErrNotFound) {
			return nil, nameErr
		}
		list[i].Name = known.Name
	}
	return list, err
}

// End ends all that an auditor was granted. forget deletes their name, too.
func (s *Service) End(ctx context.Context, by ledger.Operator, auditor string, forget bool) error {
	now := s.cfg.Now().UTC()
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		grants, err := tx.Grants()
		if err != nil {
			return err
		}
		known := false
		for _, g := range grants {
			if g.AuditorID != auditor {
				continue
			}
			if known = true; !g.EndedAt.IsZero() {
				continue
			}
			g.EndedAt = now
			if err := tx.PutGrant(g); err != nil {
				return err
			}
			tx.Record(by.Entry("auditor.ended", auditor, map[string]any{"grant": g.ID}))
		}
		if !known {
			return fmt.Errorf("there is no auditor %s: finpay auditor list shows them", auditor)
		}
		if !forget {
			return nil
		}
		tx.Record(by.Entry("auditor.forgotten", auditor, nil))
		return tx.DeleteAuditor(auditor)
	})
	return err
}

// Open implements [api.Auditors].
func (s *Service) Open(ctx context.Context, link, origin string) (session string, until time.Time, err error) {
	session = newSecret()
	hash, sessionHash := secretHash(link), secretHash(session)
	now := s.cfg.Now().UTC()
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		g, err := tx.GrantOf(store.GrantLink, hash)
		if errors.Is(err, store.ErrNotFound) {
			return api.ErrUnauthorized
		}
		if err != nil {
			return err
		}
		if !g.OpenedAt.IsZero() || !holds(g, now) {
			return api.ErrUnauthorized
		}
		g.OpenedAt, g.Session, until = now, sessionHash, g.ExpiresAt
		if err := tx.PutGrant(g); err != nil {
			return err
		}
		tx.Record(ledger.Entry{Type: "auditor.link_opened", Actor: g.AuditorID, Origin: origin, Outcome: ledger.Success, Resource: g.AuditorID, Data: map[string]any{"grant": g.ID}})
		return nil
	})
	switch {
	case errors.Is(err, api.ErrUnauthorized):
		return "", until, s.cfg.Logins.Refused(ctx, resource, origin)
	case err != nil:
		return "", until, unavailable(err)
	}
	return session, until, nil
}

// holds reports whether a grant is in force.
func holds(g store.AuditorGrant, now time.Time) bool {
	return g.EndedAt.IsZero() && now.Before(g.ExpiresAt) && !now.Before(g.CreatedAt)
}

// Session implements [api.Auditors].
func (s *Service) Session(ctx context.Context, session, origin string) (api.Person, error) {
	g, err := s.cfg.Store.Read(ctx).GrantOfSession(secretHash(session))
	return s.person(ctx, g, err, origin)
}

// Certified implements [api.Auditors].
func (s *Service) Certified(ctx context.Context, certificate *x509.Certificate, origin string) (api.Person, error) {
	g, err := s.cfg.Store.Read(ctx).GrantOf(store.GrantCertificate, certificateHash(certificate))
	if now := s.cfg.Now(); err == nil && (now.After(certificate.NotAfter) || now.Before(certificate.NotBefore)) {
		err = store.ErrNotFound
	}
	return s.person(ctx, g, err, origin)
}

func (s *Service) person(ctx context.Context, g store.AuditorGrant, err error, origin string) (api.Person, error) {
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return api.Person{}, unavailable(err)
	}
	if err != nil || !holds(g, s.cfg.Now()) {
		return api.Person{}, s.cfg.Logins.Refused(ctx, resource, origin)
	}
	known, err := s.cfg.Store.Read(ctx).Auditor(g.AuditorID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return api.Person{}, unavailable(err)
	}
	return api.Person{Viewer: api.Viewer{Actor: g.AuditorID, Origin: origin}, Name: known.Name, Until: g.ExpiresAt}, nil
}

// Leave implements [api.Auditors].
func (s *Service) Leave(ctx context.Context, session, origin string) error {
	hash, now := secretHash(session), s.cfg.Now().UTC()
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		g, err := tx.GrantOfSession(hash)
		if errors.Is(err, store.ErrNotFound) || err == nil && !holds(g, now) {
			return nil
		}
		if err != nil {
			return err
		}
		g.EndedAt = now
		if err := tx.PutGrant(g); err != nil {
			return err
		}
		tx.Record(ledger.Entry{Type: "auditor.left", Actor: g.AuditorID, Origin: origin, Outcome: ledger.Success, Resource: g.AuditorID, Data: map[string]any{"grant": g.ID}})
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	return nil
}
