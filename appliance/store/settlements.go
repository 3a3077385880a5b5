package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/finterra/finpay/pci"
)

// Settlement is one comparison of books with an acquirer: of a terminal in one currency.
type Settlement struct {
	ID        string
	Connector string
	Terminal  string
	Currency  pci.Currency
	Log       int64 // number of the log that the entries are in
	From      int64 // the first entry that is counted
	Through   int64 // the first that is not
	Status    string
	Ours      pci.Totals
	Theirs    pci.Totals // as far as the acquirer has told them
	Trace     pci.Trace
	CreatedAt time.Time
	UpdatedAt time.Time
}

// The statuses of a [Settlement].
const (
	SettlementPending      = "pending" // announced; no answer is known
	SettlementBalanced     = "balanced"
	SettlementOutOfBalance = "out_of_balance"
)

const settlementColumns = "id, connector, terminal, currency, log, entries_from, entries_through, status, ours, theirs, stan, sent_at, created_at, updated_at"

func scanSettlement(row scanner) (s Settlement, err error) {
	var ours, theirs []byte
	err = row.Scan(&s.ID, &s.Connector, &s.Terminal, &s.Currency, &s.Log, &s.From, &s.Through, &s.Status, &ours, &theirs, &s.Trace.STAN,
		scanTime{&s.Trace.TransmittedAt}, scanTime{&s.CreatedAt}, scanTime{&s.UpdatedAt})
	if err != nil {
		return s, translate(err)
	}
	for _, totals := range []struct {
		text []byte
		into *pci.Totals
	}{{ours, &s.Ours}, {theirs, &s.Theirs}} {
		if err := json.Unmarshal(totals.text, totals.into); err != nil {
			return s, fmt.Errorf("settlement %s: %w", s.ID, err)
		}
	}
	return s, nil
}

// Settlements returns a connector's, newest first; of all connectors where none is named.
func (q Queries) Settlements(connector string, limit int) (list []Settlement, err error) {
	err = each(q, scanSettlement, func(s Settlement) error { list = append(list, s); return nil },
		"SELECT "+settlementColumns+" FROM settlements WHERE ?1 = '' OR connector = ?1 ORDER BY log DESC, entries_through DESC, terminal, currency LIMIT ?2", connector, limit)
	return list, err
}

// PendingSettlements returns a connector's that are not answered, oldest first.
func (q Queries) PendingSettlements(connector string) (list []Settlement, err error) {
	err = each(q, scanSettlement, func(s Settlement) error { list = append(list, s); return nil },
		"SELECT "+settlementColumns+" FROM settlements WHERE connector = ? AND status = 'pending' ORDER BY log, entries_through, terminal, currency", connector)
	return list, err
}

// SettledKeys returns the terminals and currencies for which a connector has settlements; nothing else of them is set.
func (q Queries) SettledKeys(connector string) (list []Settlement, err error) {
	err = each(q, func(row scanner) (s Settlement, err error) {
		err = row.Scan(&s.Terminal, &s.Currency)
		return s, err
	},
		func(s Settlement) error { list = append(list, s); return nil },
		"SELECT DISTINCT terminal, currency FROM settlements WHERE connector = ?", connector)
	return list, err
}

// LastBalanced returns the newest settlement of a terminal and currency at which both sides agreed.
func (q Queries) LastBalanced(connector, terminal string, currency pci.Currency) (Settlement, error) {
	return scanSettlement(q.q.QueryRowContext(q.ctx, "SELECT "+settlementColumns+` FROM settlements
		WHERE connector = ? AND terminal = ? AND currency = ? AND status = 'balanced' ORDER BY log DESC, entries_through DESC LIMIT 1`, connector, terminal, currency))
}

// PutSettlement writes a settlement.
func (tx *Tx) PutSettlement(s Settlement) error {
	inUTC(&s.Trace.TransmittedAt, &s.CreatedAt, &s.UpdatedAt)
	ours, err := json.Marshal(s.Ours)
	if err != nil {
		return err
	}
	theirs, err := json.Marshal(s.Theirs)
	if err != nil {
		return err
	}
	return tx.write("settlements", s.ID, s, `INSERT INTO settlements (`+settlementColumns+`) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET status = excluded.status, theirs = excluded.theirs, updated_at = excluded.updated_at`,
		s.ID, s.Connector, s.Terminal, s.Currency, s.Log, s.From, s.Through, s.Status, string(ours), string(theirs), s.Trace.STAN,
		formatTime(s.Trace.TransmittedAt), formatTime(s.CreatedAt), formatTime(s.UpdatedAt))
}

func (q Queries) coveredSettlements(hashed func(table, key string, value any) error) error {
	return each(q, scanSettlement, func(s Settlement) error { return hashed("settlements", s.ID, s) },
		"SELECT "+settlementColumns+" FROM settlements")
}
