package payment

import (
	"crypto/rand"
	"time"

	"github.com/oklog/ulid/v2"
)

// newID returns a sortable id such as "pay_01J…". It grants nothing. ulid.Make would not take its entropy from
// crypto/rand.
func newID(prefix string) string {
	return prefix + "_" + ulid.MustNew(ulid.Timestamp(time.Now()), rand.Reader).String()
}
