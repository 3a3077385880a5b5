package acquiring

import (
	"fmt"
	"testing"
)

func TestEndedRequestsAreForgottenInTheEnd(t *testing.T) {
	f := newFlights()
	keyOf := func(i int) key { return key{mti: "0210", stan: fmt.Sprintf("%06d", i)} }
	for i := range remembered + 100 {
		if _, err := f.begin(query{key: keyOf(i)}); err != nil {
			t.Fatal(err)
		}
		f.giveUp(keyOf(i))
	}
	if len(f.ended) != remembered || len(f.order) != remembered {
		t.Errorf("%d requests are remembered in %d places, want %d", len(f.ended), len(f.order), remembered)
	}
	f.settle(answer{query: query{key: keyOf(0)}}, true)
	f.settle(answer{query: query{key: keyOf(remembered + 99)}}, true)
	if s := f.stats(); s.Unmatched != 1 || s.Late != 1 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func TestTraceNumberMayComeAgain(t *testing.T) {
	f := newFlights()
	k := key{mti: "0210", stan: "000001"}
	for _, rrn := range []string{"000000000001", "000000000002"} {
		waiting, err := f.begin(query{key: k, rrn: rrn})
		if err != nil {
			t.Fatal(err)
		}
		// The answer to another request of that number is not this one's.
		f.settle(answer{query: query{key: k, rrn: "000000000099"}}, true)
		f.settle(answer{query: query{key: k, rrn: rrn}, code: "00"}, true)
		if got := <-waiting; got.rrn != rrn {
			t.Errorf("%s was answered with %s", rrn, got.rrn)
		}
		f.giveUp(k)
	}
	if s := f.stats(); s.Mismatched != 2 || s.Late+s.Duplicate+s.Unmatched != 0 {
		t.Errorf("%+v", s)
	}
}
