package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"

	formatsnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/finterra/finpay/appliance/ledger"
)

// head is what a checkpoint says.
type head struct {
	size int64
	root digest
}

// walk goes through a log once, from its first entry to its last. A source calls begin, then signed for each checkpoint before
// the entries that it covers, and take for each entry.
type walk struct {
	terms     Terms
	key       string
	verifier  note.Verifier
	witnesses []note.Verifier

	first, size int64
	edge        edge
	room        []byte
	ahead       []head // signed, and not met yet
	covered     int64  // size of the last checkpoint that held
	stop        int64  // the next size at which something is compared

	kept        *head
	keptMet     bool
	cosigned    []int64 // by each witness
	checkpoints int64
	keyEntries  int64
}

func newWalk(terms Terms) (*walk, error) {
	w := &walk{terms: terms, cosigned: make([]int64, len(terms.Witnesses))}
	for _, vkey := range terms.Witnesses {
		verifier, err := witnessVerifier(vkey)
		if err != nil {
			return nil, err
		}
		w.witnesses = append(w.witnesses, verifier)
	}
	return w, w.verifyUnder(terms.Key)
}

// verifyUnder sets the key that checkpoints must be signed under.
func (w *walk) verifyUnder(vkey string) (err error) {
	if w.key = vkey; vkey == "" {
		return nil
	}
	if w.verifier, err = formatsnote.NewVerifier(vkey); err != nil {
		return fmt.Errorf("the verifier key: %w", err)
	}
	return nil
}

func (w *walk) pinned() bool { return w.terms.Key != "" }

// begin tells where the log begins: its own key, and the edge of the tree before its first entry.
func (w *walk) begin(key string, first int64, before edge) error {
	if !w.pinned() {
		if key == "" {
			return wrong(-1, "there is no verifier key")
		}
		if err := w.verifyUnder(key); err != nil {
			return wrong(-1, "%v", err)
		}
	}
	w.first, w.size, w.covered, w.edge = first, first, first, before
	if err := w.openKept(); err != nil {
		return err
	}
	w.plan()
	return nil
}

func (w *walk) openKept() error {
	if w.terms.Kept == nil {
		return nil
	}
	kept, err := w.open(w.terms.Kept, nil)
	if err != nil {
		return wrong(-1, "the checkpoint that was kept: %v", err)
	}
	if w.kept = &kept; kept.size < w.first {
		return wrong(-1, "the checkpoint that was kept has %d entries, and these begin after them, with entry %d: export from there on", kept.size, w.first)
	}
	if kept.size == w.first {
		return w.meetKept()
	}
	return nil
}

// open verifies a checkpoint. cosigned learns which witnesses have signed it too.
func (w *walk) open(text []byte, cosigned func(witness int, size int64)) (head, error) {
	checkpoint, signatures, err := ledger.OpenSigned(text, w.verifier.Name(), w.verifier, w.witnesses...)
	if err != nil {
		return head{}, err
	}
	if checkpoint.Size == 0 || checkpoint.Size > math.MaxInt64 || len(checkpoint.Hash) != sha256.Size {
		return head{}, fmt.Errorf("a checkpoint of %d entries, with a root of %d bytes", checkpoint.Size, len(checkpoint.Hash))
	}
	for i, witness := range w.witnesses {
		for _, s := range signatures {
			if cosigned != nil && s.Name == witness.Name() && s.Hash == witness.KeyHash() {
				cosigned(i, int64(checkpoint.Size))
			}
		}
	}
	return head{int64(checkpoint.Size), digest(checkpoint.Hash)}, nil
}

// signed takes the next checkpoint.
func (w *walk) signed(text []byte) (size int64, err error) {
	last := w.covered
	if n := len(w.ahead); n > 0 {
		last = w.ahead[n-1].size
	}
	next, err := w.open(text, func(i int, size int64) { w.cosigned[i] = size })
	if err != nil {
		return 0, wrong(-1, "the checkpoint after that of %d entries: %v", last, err)
	}
	if next.size <= last || next.size <= w.size {
		return 0, wrong(-1, "a checkpoint of %d entries stands after one of %d", next.size, last)
	}
	w.ahead = append(w.ahead, next)
	w.plan()
	return next.size, nil
}

// plan finds the next size at which something is compared.
func (w *walk) plan() {
	w.stop = math.MaxInt64
	if len(w.ahead) > 0 {
		w.stop = w.ahead[0].size
	}
	if w.kept != nil && !w.keptMet {
		w.stop = min(w.stop, w.kept.size)
	}
}

// take adds an entry to the tree. claimed is the hash that the log has of it, where the source has it. It returns the hashes
// that the log must have stored by now.
func (w *walk) take(entry []byte, claimed []byte) ([]node, error) {
	leaf := leafHash(entry, &w.room)
	if claimed != nil && string(leaf[:]) != string(claimed) {
		return nil, wrong(w.size, "the entry's text does not match its leaf")
	}
	stored := w.edge.push(leaf)
	if w.size++; w.size < w.stop {
		return stored, nil
	}
	return stored, w.meet()
}

// meet compares the root with those that are known of this size.
func (w *walk) meet() error {
	if len(w.ahead) > 0 && w.ahead[0].size == w.size {
		if w.ahead[0].root != w.edge.root() {
			return wrong(w.covered, "entries %d to %d are not those that were signed", w.covered, w.size-1)
		}
		w.ahead, w.covered = w.ahead[1:], w.size
		w.checkpoints++
	}
	if w.kept != nil && w.kept.size == w.size {
		if err := w.meetKept(); err != nil {
			return err
		}
	}
	w.plan()
	return nil
}

func (w *walk) meetKept() error {
	if w.kept.root != w.edge.root() {
		return wrong(-1, "the first %d entries are not those under the checkpoint that was kept: the log was rewritten", w.kept.size)
	}
	w.keptMet = true
	return nil
}

// finish judges what is only known at the end.
func (w *walk) finish() error {
	switch {
	case w.verifier == nil || w.checkpoints+int64(len(w.ahead)) == 0:
		return wrong(-1, "there is no signed checkpoint")
	case len(w.ahead) > 0:
		return wrong(w.size, "the entry is missing")
	case w.covered < w.size:
		return wrong(w.covered, "the entry is under no checkpoint")
	case w.kept != nil && !w.keptMet:
		return wrong(-1, "the checkpoint that was kept has %d entries, and these end after %d: the log was cut back, or less of it was exported",
			w.kept.size, w.size)
	}
	for i, size := range w.cosigned {
		if size == 0 {
			return wrong(-1, "the witness %s has cosigned none of the checkpoints", w.witnesses[i].Name())
		}
	}
	return nil
}

func (w *walk) verdict() Verdict {
	v := Verdict{FirstBad: -1, Pinned: w.pinned(), Entries: w.size - w.first, Checkpoints: w.checkpoints, First: w.first, Size: w.size,
		Key: w.key, Fingerprint: Fingerprint(w.key), KeyEntries: w.keyEntries}
	if w.verifier != nil {
		v.Origin = w.verifier.Name()
	}
	root := w.edge.root()
	v.Root = base64.StdEncoding.EncodeToString(root[:])
	if w.keptMet {
		v.Kept = w.kept.size
	}
	for i, size := range w.cosigned {
		if i == 0 || size < v.Cosigned {
			v.Cosigned = size
		}
	}
	v.Witnessed = v.Cosigned > 0
	return v
}
