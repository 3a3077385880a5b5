package store

// Methods about the signed log mean the one that is open, or the one that [Queries.InLog] names: see logs.go for how they share
// the tables.

// LedgerEntry is one leaf of the signed log.
type LedgerEntry struct {
	Log   int64 // number of its log
	Index int64
	Leaf  []byte // RFC 6962 leaf hash
	Entry []byte // canonical JSON
}

// LedgerSize returns the number of entries.
func (q Queries) LedgerSize() (int64, error) {
	var n int64
	err := q.q.QueryRowContext(q.ctx, "SELECT COALESCE(MAX(idx) + 1 - ?1, 0) FROM ledger_entries WHERE idx >= ?1 AND idx < ?2", q.begin(), q.end()).Scan(&n)
	return n, translate(err)
}

// LedgerEntries returns entries from an index on, in order.
func (q Queries) LedgerEntries(from int64, limit int) ([]LedgerEntry, error) {
	return q.ledgerEntries("WHERE idx >= ? AND idx < ? ORDER BY idx LIMIT ?", q.begin()+from, q.end(), limit)
}

// LedgerEntriesOf returns the entries of every log about a resource, in order.
func (q Queries) LedgerEntriesOf(resource string) ([]LedgerEntry, error) {
	return q.ledgerEntries("WHERE entry ->> '$.resource' = ? ORDER BY idx", resource)
}

func (q Queries) ledgerEntries(clause string, args ...any) ([]LedgerEntry, error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT idx, leaf, entry FROM ledger_entries "+clause, args...)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var list []LedgerEntry
	for rows.Next() {
		var e LedgerEntry
		var number int64
		if err := rows.Scan(&number, &e.Leaf, &e.Entry); err != nil {
			return nil, translate(err)
		}
		e.Log, e.Index = number/logSpan, number%logSpan
		list = append(list, e)
	}
	return list, translate(rows.Err())
}

// LedgerHashes returns count hashes of complete subtrees of 256^level leaves, from an index on. Level 0 are the
// leaves themselves.
func (q Queries) LedgerHashes(level int, from int64, count int) ([][]byte, error) {
	query, args := "SELECT hash FROM ledger_nodes WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx LIMIT ?", []any{level, q.begin() + from, q.end(), count}
	if level == 0 {
		query, args = "SELECT leaf FROM ledger_entries WHERE idx >= ? AND idx < ? ORDER BY idx LIMIT ?", []any{q.begin() + from, q.end(), count}
	}
	rows, err := q.q.QueryContext(q.ctx, query, args...)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	hashes := make([][]byte, 0, count)
	for rows.Next() {
		var h []byte
		if err := rows.Scan(&h); err != nil {
			return nil, translate(err)
		}
		hashes = append(hashes, h)
	}
	return hashes, translate(rows.Err())
}

// LedgerCheckpoint returns the newest signed checkpoint and its size.
func (q Queries) LedgerCheckpoint() (size int64, note []byte, err error) {
	err = q.q.QueryRowContext(q.ctx, "SELECT size - ?1, note FROM ledger_checkpoints WHERE size >= ?1 AND size < ?2 ORDER BY size DESC LIMIT 1",
		q.begin(), q.end()).Scan(&size, &note)
	return size, note, translate(err)
}

// LedgerCheckpoint is a signed tree head, with what witnesses have added.
type LedgerCheckpoint struct {
	Size int64
	Note []byte
}

const cosignedColumns = `c.size - ?1, CAST(c.note || coalesce((SELECT group_concat(s.line, '') FROM ledger_cosignatures s WHERE s.size = c.size), '') AS BLOB)`

func scanCheckpoint(row scanner) (LedgerCheckpoint, error) {
	var c LedgerCheckpoint
	err := row.Scan(&c.Size, &c.Note)
	return c, translate(err)
}

// LedgerCheckpoints returns checkpoints of trees larger than a size, smallest first.
func (q Queries) LedgerCheckpoints(after int64, limit int) (list []LedgerCheckpoint, err error) {
	err = each(q, scanCheckpoint, func(c LedgerCheckpoint) error { list = append(list, c); return nil },
		"SELECT "+cosignedColumns+" FROM ledger_checkpoints c WHERE c.size > ?1 + ?2 AND c.size < ?3 ORDER BY c.size LIMIT ?4", q.begin(), after, q.end(), limit)
	return list, err
}

// CosignedCheckpoint returns the newest checkpoint that a witness has signed, or [ErrNotFound].
func (q Queries) CosignedCheckpoint() (LedgerCheckpoint, error) {
	return scanCheckpoint(q.q.QueryRowContext(q.ctx, "SELECT "+cosignedColumns+` FROM ledger_checkpoints c
		WHERE c.size = (SELECT max(size) FROM ledger_cosignatures WHERE size >= ?1 AND size < ?2)`, q.begin(), q.end()))
}

// Cosignatures returns the signature lines that witnesses have given the checkpoint of a size.
func (q Queries) Cosignatures(size int64) (lines []string, err error) {
	err = each(q, func(row scanner) (line string, err error) { return line, row.Scan(&line) },
		func(line string) error { lines = append(lines, line); return nil },
		"SELECT line FROM ledger_cosignatures WHERE size = ? ORDER BY line", q.begin()+size)
	return lines, err
}

// PutCosignature keeps the signature line of a witness (C2SP tlog-cosignature), with its newline. It proves itself.
func (tx *Tx) PutCosignature(size int64, line string) error {
	return tx.Exec("INSERT INTO ledger_cosignatures (size, line) VALUES (?,?) ON CONFLICT DO NOTHING", tx.begin()+size, line)
}

// PutLedgerEntry appends a leaf.
func (tx *Tx) PutLedgerEntry(e LedgerEntry) error {
	return tx.Exec("INSERT INTO ledger_entries (idx, leaf, entry) VALUES (?,?,?)", tx.begin()+e.Index, e.Leaf, string(e.Entry))
}

// LedgerNode is the root of a complete subtree of 256^Level leaves.
type LedgerNode struct {
	Level int
	Index int64
	Hash  []byte
}

// PutLedgerNode keeps the root of a complete subtree.
func (tx *Tx) PutLedgerNode(n LedgerNode) error {
	return tx.Exec("INSERT INTO ledger_nodes (level, idx, hash) VALUES (?,?,?)", n.Level, tx.begin()+n.Index, n.Hash)
}

// PutLedgerCheckpoint keeps a signed checkpoint.
func (tx *Tx) PutLedgerCheckpoint(size int64, note []byte) error {
	return tx.Exec("INSERT INTO ledger_checkpoints (size, note) VALUES (?,?)", tx.begin()+size, note)
}
