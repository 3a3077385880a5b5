package hsm_test

import (
	"testing"
	"time"

	"github.com/finterra/finpay/hsm"
)

func TestTheRecommendedBatchFollowsFromTheLine(t *testing.T) {
	line := func(fixed, each time.Duration) hsm.Timing {
		return hsm.Timing{Batches: []hsm.BatchTime{{Blocks: 1, Time: fixed + each}, {Blocks: 64, Time: fixed + 64*each}, {Blocks: 1024, Time: fixed + 1024*each}}}
	}
	for _, c := range []struct {
		name  string
		t     hsm.Timing
		batch int
	}{
		{"90 µs a call, 1 µs a block: 810 blocks make the call a tenth", line(90*time.Microsecond, time.Microsecond), 1024},
		{"a tenth already", line(time.Microsecond, 9*time.Microsecond), 1},
		{"calls that cost nothing", line(0, time.Microsecond), 1},
		{"a network so slow that callers would wait", line(10*time.Millisecond, time.Nanosecond), hsm.MaxBatch},
		{"not measured", hsm.Timing{}, 0},
	} {
		if got := c.t.Batch(); got != c.batch {
			t.Errorf("%s: %d, want %d", c.name, got, c.batch)
		}
	}
	if got := line(90*time.Microsecond, time.Microsecond).At(1000); got != 1090*time.Microsecond {
		t.Errorf("1,000 blocks take %v, want 1.09ms", got)
	}
	if share := line(time.Microsecond, time.Microsecond).FixedShare(1); share != 0.5 {
		t.Errorf("the fixed share of one block is %v, want a half", share)
	}
}
