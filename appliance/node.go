package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/webhook"
	"github.com/finterra/finpay/hsm"
)

// node is what every command that changes something stands on: the HSM, the database, the signed log, the books of the
// keys, and the merchants.
type node struct {
	engine    *hsm.Engine
	store     *store.Store
	ledger    *ledger.Ledger
	head      *head // the ledger's, outside of the database
	behind    error // the database is not the newest: only [openToLook] goes on with one
	keys      keyring
	merchants *merchant.Service
}

// openNode opens all of it, or nothing: a key that is not what the books say of it is a reason to stop.
func openNode(ctx context.Context, cfg config.Config, log *slog.Logger) (*node, error) {
	n, err := openBooks(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	if err := n.finishRetirements(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	problems, err := n.keyProblems(ctx)
	if err == nil && onlyAbout(roleIntake, problems) {
		if err = n.buryIntakeKeys(ctx); err == nil {
			problems, err = n.keyProblems(ctx)
		}
	}
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("the HSM's keys are not those of the books, so nothing is served: %w", errors.Join(problems...))
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// openBooks opens a node whatever the state of its keys, but for those of the log.
func openBooks(ctx context.Context, cfg config.Config, log *slog.Logger) (*node, error) {
	n, err := openToLook(ctx, cfg, log)
	if err == nil && n.behind != nil {
		err = errors.Join(n.behind, n.close())
	}
	if err != nil {
		return nil, err
	}
	if err := n.listEntered(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// openToLook opens a node even where its database is not the newest, which is then noted. The store comes first: its lock
// keeps a second process away from the HSM.
func openToLook(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *node, err error) {
	n := &node{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if n.store, err = store.Open(ctx, cfg.State()); err != nil {
		return nil, err
	}
	if n.keys, err = n.store.Read(ctx).Keys(); err != nil {
		return nil, err
	}
	if n.engine, err = openHSM(cfg, log); err != nil {
		return nil, err
	}
	if err := n.openLedger(ctx, cfg, log); err != nil {
		return nil, err
	}
	kek, err := n.envelope(n.keys)
	if err != nil {
		return nil, err
	}
	n.merchants = merchant.New(merchant.Config{
		Store:  n.store,
		Ledger: n.ledger,
		APIKey: mac{n.engine.MAC(n.keys.key(roleAPIKey))},
		Return: mac{n.engine.MAC(n.keys.key(roleReturn))},
		KEK:    kek,
	})
	return n, nil
}

// endpoints is the register of where merchants are told of events; wake is told that there is something to deliver.
func (n *node) endpoints(cfg config.Config, wake func()) *webhook.Register {
	return webhook.NewRegister(webhook.RegisterConfig{Store: n.store, Ledger: n.ledger, Merchants: n.merchants,
		AllowPrivate: cfg.Webhooks.AllowPrivate, Wake: wake})
}

func (n *node) openLedger(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	signer, err := n.engine.Signer(ctx, n.keys.key(roleLedger))
	if err != nil {
		return err
	}
	settings := ledger.Config{Node: cfg.Node, Signer: signer, Log: log}
	if settings.Origin, err = openLog(n.store.Read(ctx), cfg); err != nil {
		return err
	}
	witnessable, err := n.engine.Signer(ctx, n.keys.key(roleLedgerEd25519))
	switch {
	case err == nil:
		settings.Witnessable = witnessable
	case !errors.Is(err, hsm.ErrNoKey): // an HSM without Ed25519 is served, and its log is not witnessed
		return err
	}
	n.head = &head{engine: n.engine, store: n.store, state: cfg.State(), log: log}
	settings.Known, err = n.head.known(ctx)
	if err == nil {
		n.ledger, err = ledger.Open(ctx, n.store, settings)
	}
	if errors.Is(err, ledger.ErrBehind) || errors.Is(err, errHeadMissing) {
		n.behind = advised(err)
		settings.Known = nil
		n.ledger, err = ledger.Open(ctx, n.store, settings)
	}
	return err
}

// openLog returns the name of the log that is open: that of the configuration, unless another one has followed it.
func openLog(read store.Queries, cfg config.Config) (string, error) {
	closed, err := read.ClosedLogs()
	if err != nil || len(closed) == 0 {
		return cfg.Ledger.Origin, err
	}
	return closed[len(closed)-1].Successor, nil
}

func (n *node) close() error {
	var errs []error
	if n.ledger != nil {
		if n.behind == nil {
			errs = append(errs, n.head.keep(context.Background(), n.ledger))
		}
		n.ledger.Close()
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.engine != nil {
		errs = append(errs, n.engine.Close())
	}
	return errors.Join(errs...)
}

func hsmConfig(cfg config.Config, log *slog.Logger) (hsm.Config, error) {
	pin, err := os.ReadFile(cfg.HSM.PINFile)
	if err != nil {
		return hsm.Config{}, fmt.Errorf("the HSM's PIN: %w", err)
	}
	return hsm.Config{
		Module:        cfg.HSM.Module,
		Label:         cfg.HSM.Token,
		PIN:           strings.TrimSpace(string(pin)),
		Sessions:      cfg.HSM.Sessions,
		BlockSessions: cfg.HSM.BlockSessions,
		CallLimit:     cfg.HSM.CallLimit,
		InitArgument:  cfg.HSM.InitArgument,
		Environment:   cfg.HSM.Environment,
		Profile:       cfg.HSM.Profile(),
		SealedCustody: cfg.Custody.Kind == config.SealedCustody,
		Log:           log,
	}, nil
}

func openHSM(cfg config.Config, log *slog.Logger) (*hsm.Engine, error) {
	settings, err := hsmConfig(cfg, log)
	if err != nil {
		return nil, err
	}
	return hsm.Open(settings)
}
