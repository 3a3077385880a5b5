package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// secretRepeat is how long a repeat of a request shows the secret that the first one made.
const secretRepeat = time.Hour

// Merchants makes secrets, and recognises repeated requests.
type Merchants interface {
	Secrets
	NewWebhookSecret(e store.Endpoint) (secret string, sealed []byte, err error)
	RequestMAC(ctx context.Context, request []byte) ([]byte, error)
}

// RegisterConfig is of a [Register].
type RegisterConfig struct {
	Store        *store.Store
	Ledger       *ledger.Ledger
	Merchants    Merchants
	AllowPrivate bool   // endpoints may be at loopback and private addresses
	Wake         func() // is told that there is something to deliver; nil for nobody
	Now          func() time.Time
}

// Register keeps the endpoints that merchants are told at. It implements [api.Events]; each change is an entry.
type Register struct{ cfg RegisterConfig }

// NewRegister returns a register.
func NewRegister(cfg RegisterConfig) *Register {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	return &Register{cfg}
}

// actor is who asks, and how an entry about it begins.
type actor struct {
	merchant string
	entry    func(kind, resource string, data map[string]any) ledger.Entry
}

func actorOf(c api.Caller) actor {
	return actor{c.MerchantID, func(kind, resource string, data map[string]any) ledger.Entry {
		return ledger.Entry{Type: kind, Actor: "key:" + c.KeyID, Origin: c.Origin, Outcome: ledger.Success, Resource: resource, Data: data}
	}}
}

// CreateEndpoint implements [api.Events].
func (r *Register) CreateEndpoint(ctx context.Context, caller api.Caller, request api.CreateEndpoint, idempotencyKey string) (api.Endpoint, error) {
	return r.once(ctx, caller, "POST /v1/webhook-endpoints", request, idempotencyKey, func(first noting) (api.Endpoint, error) {
		return r.create(ctx, actorOf(caller), request, first)
	})
}

// Equip gives a merchant an endpoint at an address, as its operator does it: a new one, or another secret for the one that is
// there, whose old secret ends at once.
func (r *Register) Equip(ctx context.Context, by ledger.Operator, merchantID, address string) (api.Endpoint, error) {
	known, err := r.cfg.Store.Read(ctx).Endpoints(merchantID)
	if err != nil {
		return api.Endpoint{}, translate(err)
	}
	who := actor{merchantID, by.Entry}
	if i := slices.IndexFunc(known, func(e store.Endpoint) bool { return e.URL == address }); i >= 0 {
		return r.rotate(ctx, who, known[i].ID, 0, notNoted)
	}
	request := api.CreateEndpoint{URL: address}
	if err := request.Check(); err != nil {
		return api.Endpoint{}, err
	}
	return r.create(ctx, who, request, notNoted)
}

func (r *Register) create(ctx context.Context, who actor, request api.CreateEndpoint, first noting) (api.Endpoint, error) {
	now := r.cfg.Now()
	e := store.Endpoint{ID: store.NewID("whe"), MerchantID: who.merchant, URL: request.URL, Types: request.EventTypes,
		Status: statusOf(request.Enabled == nil || *request.Enabled), CreatedAt: now, UpdatedAt: now}
	secret, sealed, err := r.cfg.Merchants.NewWebhookSecret(e)
	if err != nil {
		return api.Endpoint{}, translate(err)
	}
	e.Secret = sealed
	_, err = r.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if err := first(tx, e); err != nil {
			return err
		}
		if err := r.allowed(tx, e); err != nil {
			return err
		}
		known, err := tx.Endpoints(who.merchant)
		if err != nil {
			return err
		}
		if len(known) >= api.MaxEndpoints {
			return api.ErrInvalid.With("A merchant has at most %d endpoints. Delete one first.", api.MaxEndpoints)
		}
		return put(tx, who, e, "webhook_endpoint.created")
	})
	if err != nil {
		return api.Endpoint{}, translate(err)
	}
	shown := showEndpoint(e, now)
	shown.Secret = secret
	return shown, nil
}

// put writes an endpoint, with its entry. The entry has the address's host only: the rest may hold a secret.
func put(tx *ledger.Tx, who actor, e store.Endpoint, kind string) (err error) {
	data := map[string]any{"merchant": e.MerchantID, "host": hostOf(e), "types": strings.Join(e.Types, " "), "status": e.Status}
	if !e.OldUntil.IsZero() {
		data["old_secret_until"] = e.OldUntil.UTC().Format(time.RFC3339)
	}
	if e.Status != store.EndpointEnabled {
		if data["cancelled"], err = tx.PendingAt(e.ID); err != nil {
			return err
		}
	}
	if err := tx.PutEndpoint(e); err != nil {
		return err
	}
	tx.Record(who.entry(kind, e.ID, data))
	return nil
}

// hostOf returns the host of an endpoint's address, in lower case and without a dot at its end.
func hostOf(e store.Endpoint) string {
	u, err := url.Parse(e.URL)
	if err != nil {
		return ""
	}
	return strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
}

// allowed refuses an address on a host that the merchant's profile does not have, or that says by itself that it is private. Where
// a name leads to, each connection looks at.
func (r *Register) allowed(tx *ledger.Tx, e store.Endpoint) error {
	m, err := tx.Merchant(e.MerchantID)
	if err != nil {
		return err
	}
	host := hostOf(e)
	if len(m.WebhookHosts) > 0 && !slices.Contains(m.WebhookHosts, host) {
		return api.ErrInvalid.With("The merchant's profile allows webhook endpoints on %s only.", strings.Join(m.WebhookHosts, ", ")).At("/url")
	}
	if ip, err := netip.ParseAddr(host); err == nil && !r.cfg.AllowPrivate && !isPublic(ip) {
		return api.ErrInvalid.With("The address is private: nobody on the Internet has it.").At("/url")
	}
	return nil
}

// Endpoints implements [api.Events].
func (r *Register) Endpoints(ctx context.Context, caller api.Caller) (api.EndpointList, error) {
	list := api.EndpointList{Endpoints: []api.Endpoint{}}
	rows, err := r.cfg.Store.Read(ctx).Endpoints(caller.MerchantID)
	for _, e := range rows {
		list.Endpoints = append(list.Endpoints, showEndpoint(e, r.cfg.Now()))
	}
	return list, translate(err)
}

// Endpoint implements [api.Events].
func (r *Register) Endpoint(ctx context.Context, caller api.Caller, id string) (api.Endpoint, error) {
	e, err := own(r.cfg.Store.Read(ctx), caller.MerchantID, id)
	if err != nil {
		return api.Endpoint{}, translate(err)
	}
	return showEndpoint(e, r.cfg.Now()), nil
}

// own returns an endpoint of a merchant; another merchant's, and a deleted one, is not there.
func own(read store.Queries, merchantID, id string) (store.Endpoint, error) {
	e, err := read.Endpoint(id)
	if err == nil && (e.MerchantID != merchantID || e.Status == store.EndpointDeleted) {
		err = store.ErrNotFound
	}
	return e, err
}

// ChangeEndpoint implements [api.Events].
func (r *Register) ChangeEndpoint(ctx context.Context, caller api.Caller, id string, change api.ChangeEndpoint) (api.Endpoint, error) {
	return r.change(ctx, actorOf(caller), id, "webhook_endpoint.changed", notNoted, func(tx *ledger.Tx, e *store.Endpoint) error {
		if change.URL != nil {
			e.URL = *change.URL
		}
		if change.EventTypes != nil {
			e.Types = *change.EventTypes
		}
		if change.Enabled != nil && (*change.Enabled != (e.Status == store.EndpointEnabled)) {
			e.Status = statusOf(*change.Enabled)
		}
		return r.allowed(tx, *e)
	})
}

// DeleteEndpoint implements [api.Events].
func (r *Register) DeleteEndpoint(ctx context.Context, caller api.Caller, id string) error {
	who := actorOf(caller)
	_, err := r.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		e, err := own(tx.Queries, who.merchant, id)
		if err != nil {
			return err
		}
		cancelled, err := tx.PendingAt(id)
		if err != nil {
			return err
		}
		e.URL, e.Status, e.Secret, e.OldSecret, e.OldUntil, e.UpdatedAt = "", store.EndpointDeleted, nil, nil, time.Time{}, r.cfg.Now()
		if err := tx.PutEndpoint(e); err != nil {
			return err
		}
		tx.Record(who.entry("webhook_endpoint.deleted", id, map[string]any{"merchant": who.merchant, "cancelled": cancelled}))
		return nil
	})
	return translate(err)
}

// RotateSecret implements [api.Events].
func (r *Register) RotateSecret(ctx context.Context, caller api.Caller, id string, overlap time.Duration, idempotencyKey string) (api.Endpoint, error) {
	if _, err := r.Endpoint(ctx, caller, id); err != nil {
		return api.Endpoint{}, err
	}
	return r.once(ctx, caller, "POST /v1/webhook-endpoints/"+id+"/rotate-secret", overlap, idempotencyKey, func(first noting) (api.Endpoint, error) {
		return r.rotate(ctx, actorOf(caller), id, overlap, first)
	})
}

func (r *Register) rotate(ctx context.Context, who actor, id string, overlap time.Duration, first noting) (api.Endpoint, error) {
	secret, sealed, err := r.cfg.Merchants.NewWebhookSecret(store.Endpoint{ID: id, MerchantID: who.merchant})
	if err != nil {
		return api.Endpoint{}, translate(err)
	}
	shown, err := r.change(ctx, who, id, "webhook_endpoint.secret_rotated", first, func(_ *ledger.Tx, e *store.Endpoint) error {
		e.OldSecret, e.OldUntil = nil, time.Time{}
		if overlap > 0 {
			e.OldSecret, e.OldUntil = e.Secret, r.cfg.Now().Add(overlap)
		}
		e.Secret = sealed
		return nil
	})
	if err != nil {
		return api.Endpoint{}, err
	}
	shown.Secret = secret
	return shown, nil
}

// change commits a change of an endpoint.
func (r *Register) change(ctx context.Context, who actor, id, kind string, first noting, change func(*ledger.Tx, *store.Endpoint) error) (api.Endpoint, error) {
	var e store.Endpoint
	_, err := r.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) (err error) {
		if e, err = own(tx.Queries, who.merchant, id); err != nil {
			return err
		}
		if err := change(tx, &e); err != nil {
			return err
		}
		if err := first(tx, e); err != nil {
			return err
		}
		e.UpdatedAt = r.cfg.Now()
		return put(tx, who, e, kind)
	})
	if err != nil {
		return api.Endpoint{}, translate(err)
	}
	return showEndpoint(e, r.cfg.Now()), nil
}

func statusOf(enabled bool) string {
	if enabled {
		return store.EndpointEnabled
	}
	return store.EndpointDisabled
}

// showEndpoint is an endpoint as its merchant sees it, without its secret.
func showEndpoint(e store.Endpoint, now time.Time) api.Endpoint {
	shown := api.Endpoint{ID: e.ID, URL: e.URL, EventTypes: append([]string{}, e.Types...), Enabled: e.Status == store.EndpointEnabled,
		CreatedAt: e.CreatedAt.UTC(), UpdatedAt: e.UpdatedAt.UTC()}
	switch e.Status {
	case store.EndpointDisabled:
		shown.DisabledReason = "merchant"
	case store.EndpointGone:
		shown.DisabledReason = "gone"
	}
	if now.Before(e.OldUntil) {
		until := e.OldUntil.UTC()
		shown.OldSecretUntil = &until
	}
	return shown
}

// errRepeat means that another request with the same idempotency key committed first.
var errRepeat = errors.New("webhook: the idempotency key was used in the meantime")

// noting keeps a request under its idempotency key, in the commit that does what it asks for.
type noting func(*ledger.Tx, store.Endpoint) error

// notNoted is for what has no idempotency key.
func notNoted(*ledger.Tx, store.Endpoint) error { return nil }

// once does what a request asks for, or answers its repeat. do calls first in its commit.
func (r *Register) once(ctx context.Context, caller api.Caller, route string, request any, key string, do func(noting) (api.Endpoint, error)) (api.Endpoint, error) {
	if key == "" {
		return do(notNoted)
	}
	text, err := json.Marshal(request)
	if err != nil {
		return api.Endpoint{}, err
	}
	mac, err := r.cfg.Merchants.RequestMAC(ctx, append([]byte(route+"\x00"), text...))
	if err != nil {
		return api.Endpoint{}, translate(err)
	}
	row := store.Idempotent{MerchantID: caller.MerchantID, Key: key, RequestMAC: mac, CreatedAt: r.cfg.Now()}
	if shown, done, err := r.repeat(ctx, caller, row); done {
		return shown, err
	}
	shown, err := do(func(tx *ledger.Tx, e store.Endpoint) error {
		if _, err := tx.Idempotent(caller.MerchantID, key); err == nil {
			return errRepeat
		}
		row.Answer = answerOf(e)
		return tx.PutIdempotent(row)
	})
	if errors.Is(err, errRepeat) {
		shown, _, err = r.repeat(ctx, caller, row)
	}
	return shown, err
}

// answerOf is what is kept of an answer that has shown a secret: a repeat finds out by it whether the secret is still that one.
func answerOf(e store.Endpoint) string {
	sum := sha256.Sum256(e.Secret) // sealed
	return e.ID + "/" + hex.EncodeToString(sum[:8])
}

// repeat answers a request whose idempotency key was used before: with the secret that the first one has made, while it is the
// newest and an hour has not passed.
func (r *Register) repeat(ctx context.Context, caller api.Caller, request store.Idempotent) (shown api.Endpoint, done bool, err error) {
	read := r.cfg.Store.Read(ctx)
	first, err := read.Idempotent(request.MerchantID, request.Key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return shown, false, nil
	case err != nil:
		return shown, true, translate(err)
	case string(first.RequestMAC) != string(request.RequestMAC):
		return shown, true, api.ErrIdempotency
	}
	id, _, _ := strings.Cut(first.Answer, "/")
	e, err := own(read, caller.MerchantID, id)
	if err != nil {
		return shown, true, translate(err)
	}
	now := r.cfg.Now()
	shown = showEndpoint(e, now)
	if now.Sub(first.CreatedAt) < secretRepeat && answerOf(e) == first.Answer {
		secrets, err := r.cfg.Merchants.WebhookSecrets(e, now)
		if err != nil {
			return api.Endpoint{}, true, translate(err)
		}
		shown.Secret = secrets[0]
	}
	return shown, true, nil
}

// translate turns the errors of store and ledger into those of the contract. Those of pci pass.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return api.ErrNotFound
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, ledger.ErrUnavailable):
		return fmt.Errorf("%w: %w", pci.ErrUnavailable, err)
	default:
		return err
	}
}
