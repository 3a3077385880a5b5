// Package ceremony is what a key ceremony leaves on paper and on disk: the plan that custodians agree to, the shares that
// they keep, the backup of keys, and the transcript. It knows files and formats; the command carries a plan out.
//
// # What is promised
//
// A plan, a share, a backup or a transcript that was altered is refused: the plan by its digest, which each custodian
// repeats and the signed log keeps; a share by its checksums; a backup by its digest, which stands in every share; a
// transcript by the proofs of its entries under the log's public key.
//
// The value of the key encryption key and of the shares is in [Locked] memory only, and in no error.
//
// # What is not
//
// Formatting and parsing a share passes over its bytes with the standard library's SHA-256, whose state is ordinary
// memory. Custodians who bring their shares together have the keys of the backup: that is what a quorum means.
package ceremony

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// KEKSize is the length in bytes of the key encryption key of a backup: AES-256.
const KEKSize = 32

// Locked is memory for secrets: never swapped, never dumped, wiped when it is given back.
type Locked struct{ pages []byte }

// NewLocked returns n zero bytes.
func NewLocked(n int) (*Locked, error) {
	pages, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("ceremony: memory for a secret: %w", err)
	}
	l := &Locked{pages}
	if err := errors.Join(unix.Mlock(pages), unix.Madvise(pages, unix.MADV_DONTDUMP)); err != nil {
		return nil, errors.Join(fmt.Errorf("ceremony: lock memory for a secret; is the limit of locked memory (ulimit -l) too low? %w", err), l.Destroy())
	}
	return l, nil
}

// Bytes returns the memory itself.
func (l *Locked) Bytes() []byte { return l.pages }

// Destroy wipes the memory and gives it back. A nil or destroyed one is left alone.
func (l *Locked) Destroy() error {
	if l == nil || l.pages == nil {
		return nil
	}
	clear(l.pages)
	pages := l.pages
	l.pages = nil
	return unix.Munmap(pages)
}

// writeNew makes a file of the owner's alone. One that is there is never overwritten.
func writeNew(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path)) // of a full disk: part of a share is no share, and would be in the way
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close()) // its name, too, outlives a power cut
}
