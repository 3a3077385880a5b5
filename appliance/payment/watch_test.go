package payment

import "testing"

// A shopper's wait leaves nothing behind, whichever way it ends: each payment would stay in memory for good.
func TestWhatNobodyWaitsForIsNotKept(t *testing.T) {
	s := New(Config{})
	first, leaveFirst := s.watch("pay_1")
	second, leaveSecond := s.watch("pay_1")
	if first != second {
		t.Error("two tabs wait for different changes")
	}
	leaveFirst()
	if len(s.changed) != 1 {
		t.Error("the second tab's wait ended with the first one's")
	}
	s.notify("pay_1")
	select {
	case <-second:
	default:
		t.Error("the change was not told")
	}
	third, leaveThird := s.watch("pay_1")
	leaveSecond() // of the change before: the third tab still waits
	s.notify("pay_1")
	select {
	case <-third:
	default:
		t.Error("the next change was not told")
	}
	leaveThird()
	_, leave := s.watch("pay_2")
	leave()
	if len(s.changed) != 0 {
		t.Errorf("%d payments are remembered that nobody waits for", len(s.changed))
	}
}
