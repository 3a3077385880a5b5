package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/control"
	"github.com/finterra/finpay/appliance/ledger"
)

// operations are what an operator does to an appliance, whether it serves or not: its own process does them if it serves,
// else the command itself does.
type operations struct {
	cfg     config.Config
	node    *node
	serving *appliance      // nil where nothing serves
	ending  <-chan struct{} // closed when it is to end; what takes long is given up then

	mu      sync.Mutex // one at a time; it guards node.keys
	copying sync.Mutex // the database: takes long, and keeps nobody else waiting
}

// table names them.
func (o *operations) table() map[string]control.Operation {
	return map[string]control.Operation{
		"api-key create":      operation(o, o.createAPIKey),
		"api-key rotate":      operation(o, o.rotateAPIKey),
		"api-key revoke":      operation(o, o.revokeAPIKey),
		"api-key list":        operation(o, o.listAPIKeys),
		"api-key recipient":   operation(o, o.registerRecipient),
		"key list":            operation(o, o.listKeys),
		"key rotate":          operation(o, o.rotateKey),
		"key retire":          operation(o, o.retireKey),
		"key status":          operation(o, o.keyStatus),
		"key acknowledge":     operation(o, o.acknowledgeChanges),
		"auditor link":        operation(o, o.linkAuditor),
		"auditor certificate": operation(o, o.certifyAuditor),
		"auditor list":        operation(o, o.listAuditors),
		"auditor end":         operation(o, o.endAuditor),
		"import open":         operation(o, o.openImport),
		"import close":        operation(o, o.closeImport),
		"import list":         operation(o, o.listImports),
		"merchant put":        operation(o, o.putMerchant),
		"merchant list":       operation(o, o.listMerchants),
		"backup":              beside(o.makeBackup),
		"payment resolve":     operation(o, o.resolvePayment),
		"settlement list":     operation(o, o.listSettlements),
		"settlement run":      beside(o.runSettlement), // takes long where an acquirer does
		"connector list":      beside(o.listConnectors),
	}
}

// thisUser is who has started this process.
func thisUser() ledger.Operator { return ledger.Operator{Origin: control.Origin(os.Getuid())} }

// nothing is a request or an answer without content.
type nothing struct{}

// operation reads requests for do, which has its turn.
func operation[Q, A any](o *operations, do func(context.Context, ledger.Operator, Q) (A, error)) control.Operation {
	return beside(func(ctx context.Context, by ledger.Operator, q Q) (A, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		return do(ctx, by, q)
	})
}

// beside reads requests for do, which runs beside other operations.
func beside[Q, A any](do func(context.Context, ledger.Operator, Q) (A, error)) control.Operation {
	return func(ctx context.Context, by string, request []byte) (any, error) {
		var q Q
		if err := json.Unmarshal(request, &q); err != nil {
			return nil, fmt.Errorf("the request cannot be read: %w", err)
		}
		return do(ctx, ledger.Operator{Origin: by}, q)
	}
}

// operate has an operation done: by the appliance that serves, or here.
func operate[A any](ctx context.Context, g globals, name string, request any) (answer A, err error) {
	cfg, err := g.load()
	if err != nil {
		return answer, err
	}
	err = control.Call(ctx, cfg.State(), name, request, &answer)
	if !errors.Is(err, control.ErrNotRunning) {
		return answer, err
	}
	open := openNode
	if name == "key list" {
		open = openToLook // it is for finding out what is wrong
	}
	n, err := open(ctx, cfg, nil)
	if err != nil {
		return answer, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	body, err := json.Marshal(request)
	if err != nil {
		return answer, err
	}
	o := &operations{cfg: cfg, node: n}
	done, err := o.table()[name](ctx, thisUser().Origin, body)
	if err != nil {
		return answer, err
	}
	return done.(A), nil
}
