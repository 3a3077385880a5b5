//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
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

// Ahead is how much older than they are keys, waits for a next try of a webhook, and what is kept for a time, are taken to be.
func Ahead() time.Duration {
	ahead, _ := time.ParseDuration(os.Getenv("FINPAY_AHEAD"))
	return ahead
}

// Here ends the process if the test asked for this place.
func Here(place string) {
	if place == chosen && times.Add(1) >= after {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal has arrived
	}
}
