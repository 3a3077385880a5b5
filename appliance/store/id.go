package store

import (
	"crypto/rand"
	"time"

	"github.com/oklog/ulid/v2"
)

// NewID returns a row's name that sorts by time, such as "pay_01J…". It grants nothing. ulid.Make would not take its entropy from
// crypto/rand.
func NewID(prefix string) string {
	return prefix + "_" + ulid.MustNew(ulid.Timestamp(time.Now()), rand.Reader).String()
}
