//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	chosen, after = choice()
	times         atomic.Int64
)

func choice() (place string, after int64) {
	place, text, _ := strings.Cut(os.Getenv("FINPAY_FAILPOINT"), "#")
	if after, err := strconv.ParseInt(text, 10, 64); err == nil {
		return place, after
	}
	return place, 1
}

// Here ends the process if the test asked for this place.
func Here(place string) {
	if place == chosen && times.Add(1) >= after {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal has arrived
	}
}
