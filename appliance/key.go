package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/tokens"
	"github.com/finterra/finpay/hsm"
)

type keyCommand struct {
	List        listKeysCommand    `cmd:"" default:"withargs" help:"List the HSM's keys against the books; exit 1 if they disagree."`
	Rotate      rotateKeyCommand   `cmd:"" help:"Make a new version of the tokenization key, for cards that have no token yet, or of the key that cards are sealed to."`
	Retire      retireKeyCommand   `cmd:"" help:"Replace the tokens of an old version of the tokenization key, and destroy it in the end."`
	Status      keyStatusCommand   `cmd:"" help:"Say how far retirements have come, and what they wait for."`
	Acknowledge acknowledgeCommand `cmd:"" help:"Acknowledge replaced tokens for a domain that does not do so itself."`
}

type rotateKeyCommand struct {
	Role string `arg:"" enum:"tokenize,intake" help:"tokenize, or intake: the key that cards are sealed to, which is rotated by itself too. All other roles are rotated in a ceremony, which these can be too."`
}

// Run rotates the key.
func (c rotateKeyCommand) Run(ctx context.Context, g globals) error {
	row, err := operate[store.Key](ctx, g, "key rotate", rotateKey{hsm.Role(c.Role)})
	if err != nil {
		return err
	}
	if row.Role == string(roleIntake) {
		fmt.Printf("Cards are sealed to %s from now on (check value %s). The version before opens on for the time of intake.overlap.\n", row.Name(), row.CheckValue)
		return nil
	}
	fmt.Printf("%s is the active version (check value %s). Tokens of older versions work on.\n", row.Name(), row.CheckValue)
	fmt.Println("It is recoverable and has no backup yet: back it up in a ceremony now. Until then its tokens are lost with the HSM.")
	return nil
}

type rotateKey struct{ Role hsm.Role }

// rotateKey makes the next version of a key the active one.
func (o *operations) rotateKey(ctx context.Context, by ledger.Operator, q rotateKey) (store.Key, error) {
	switch q.Role {
	case roleTokenize:
		return o.rotateTokenKey(ctx, by)
	case roleIntake:
		return o.rotateIntakeKey(ctx, by)
	default:
		return store.Key{}, fmt.Errorf("%q is rotated in a ceremony", q.Role)
	}
}

func (o *operations) rotateTokenKey(ctx context.Context, by ledger.Operator) (store.Key, error) {
	n := o.node
	spec, err := specOf(roleTokenize)
	if err != nil {
		return store.Key{}, err
	}
	before, ok := n.keys.active(roleTokenize)
	if !ok {
		return store.Key{}, errors.New("the role has no active version: generate one in a ceremony")
	}
	key := hsm.Key{Role: roleTokenize, Version: n.keys.last(roleTokenize) + 1}
	if err := n.announceKey(ctx, key, spec, by); err != nil {
		return store.Key{}, err
	}
	birth, err := giveBirth(ctx, n, key, spec, &before)
	if err != nil {
		return store.Key{}, err
	}
	cipher, err := n.engine.BlockCipher(ctx, key)
	if err != nil {
		return store.Key{}, err
	}
	if _, err := n.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		return birth.apply(tx, func() map[string]any { return map[string]any{"by": by.Origin} })
	}); err != nil {
		cipher.Close()
		return store.Key{}, err
	}
	if o.serving == nil {
		cipher.Close()
	} else if err := o.serving.useTokenizer(key, cipher); err != nil {
		return store.Key{}, err
	}
	if err := n.readKeys(ctx); err != nil {
		return store.Key{}, err
	}
	return n.keys[n.keys.row(key)], nil
}

// announceKey enters that a key is about to be made, so that a later run knows one that it finds on the hsm token for its
// own. One that nobody has announced is not used.
func (n *node) announceKey(ctx context.Context, key hsm.Key, spec hsm.Spec, by ledger.Operator) error {
	entries, err := n.store.Read(ctx).LedgerEntriesOf(keyResource(key))
	if err != nil || len(entries) > 0 {
		return err
	}
	there, err := n.engine.Exists(ctx, key, spec.Kind)
	if err != nil {
		return err
	}
	if there {
		return fmt.Errorf("%s is on the hsm token and in no books: find out who made it, and remove it with the vendor's tools", key.Label())
	}
	_, err = n.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		tx.Record(ledger.Entry{Type: "key.announced", Actor: "operator", Origin: by.Origin, Outcome: ledger.Success, Resource: keyResource(key)})
		return nil
	})
	return err
}

type retireKeyCommand struct {
	Role    string        `arg:"" enum:"tokenize" help:"tokenize. All other roles are retired in a ceremony, which tokenize can be too."`
	Version uint32        `arg:"" help:"The version to retire; rotate first."`
	Window  time.Duration `default:"720h" help:"How long replaced tokens work on once all are replaced, whatever is acknowledged."`
}

// Run begins a retirement.
func (c retireKeyCommand) Run(ctx context.Context, g globals) error {
	left, err := operate[int](ctx, g, "key retire", retireKey{c.Version, c.Window})
	if err != nil {
		return err
	}
	fmt.Printf("Version %d is being retired: its %d tokens are replaced while the appliance serves.\n", c.Version, left)
	fmt.Printf("Domains find the changes at GET /v1/tokens/changes and acknowledge them; old tokens work on until then, and for %s at least.\n", c.Window)
	fmt.Println("Then the key is destroyed in the HSM. finpay key status says how far it is.")
	return nil
}

type retireKey struct {
	Version uint32
	Window  time.Duration
}

// retireKey begins the end of a version of the tokenization key, and returns how many tokens are to be replaced.
func (o *operations) retireKey(ctx context.Context, by ledger.Operator, q retireKey) (left int, err error) {
	row := o.node.keys.row(hsm.Key{Role: roleTokenize, Version: q.Version})
	switch {
	case row < 0:
		return 0, fmt.Errorf("there is no version %d of the tokenization key", q.Version)
	case o.node.keys[row].State == store.KeyActive:
		return 0, errors.New("it is the active version: rotate the key first")
	case o.node.keys[row].State == store.KeyDestroyed:
		return 0, errors.New("it is destroyed already")
	case q.Window < 0:
		return 0, errors.New("a window is no negative time")
	}
	if err := tokens.Retire(ctx, o.node.ledger, by, q.Version, q.Window); err != nil {
		return 0, err
	}
	if o.serving != nil {
		o.serving.tokens.Wake()
	}
	return o.node.store.Read(ctx).CountTokensOfVersion(q.Version)
}

type keyStatusCommand struct {
	JSON bool `help:"Print JSON."`
}

// Run shows retirements.
func (c keyStatusCommand) Run(ctx context.Context, g globals) error {
	list, err := operate[[]tokens.RetirementStatus](ctx, g, "key status", nothing{})
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(list)
	}
	printRetirements(os.Stdout, list)
	return nil
}

func printRetirements(w io.Writer, list []tokens.RetirementStatus) {
	if len(list) == 0 {
		fmt.Fprintln(w, "No version of the tokenization key is being retired.")
	}
	for _, r := range list {
		if !r.EndedAt.IsZero() {
			fmt.Fprintf(w, "tokenize v%d  retired from %s, destroyed at %s\n", r.KeyVersion, r.StartedAt.UTC().Format(time.RFC3339), r.EndedAt.UTC().Format(time.RFC3339))
			continue
		}
		fmt.Fprintf(w, "tokenize v%d  retiring since %s, %d tokens left\n", r.KeyVersion, r.StartedAt.UTC().Format(time.RFC3339), r.Left)
		for _, reason := range r.WaitsFor {
			fmt.Fprintf(w, "  waits for %s\n", reason)
		}
	}
}

func (o *operations) keyStatus(ctx context.Context, _ ledger.Operator, _ nothing) ([]tokens.RetirementStatus, error) {
	return tokens.Retirements(o.node.store.Read(ctx), time.Now())
}

type acknowledgeCommand struct {
	Domain  string `arg:"" help:"The domain."`
	Through int64  `arg:"" help:"Number of the newest change that is acknowledged."`
}

// Run acknowledges for a domain.
func (c acknowledgeCommand) Run(ctx context.Context, g globals) error {
	changes, err := operate[api.TokenChanges](ctx, g, "key acknowledge", acknowledgeChanges(c))
	if err != nil {
		return err
	}
	fmt.Printf("Domain %s has acknowledged its changes through %d; the newest is %d.\n", changes.Domain, changes.Acknowledged, changes.Newest)
	return nil
}

type acknowledgeChanges struct {
	Domain  string
	Through int64
}

func (o *operations) acknowledgeChanges(ctx context.Context, by ledger.Operator, q acknowledgeChanges) (api.TokenChanges, error) {
	changes, err := tokens.Acknowledge(ctx, o.node.ledger, by, q.Domain, q.Through)
	if o.serving != nil {
		o.serving.tokens.Wake()
	}
	return changes, err
}
