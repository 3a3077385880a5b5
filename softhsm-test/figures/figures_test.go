package figures

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFigureFallsShortOnTheRightSide(t *testing.T) {
	for _, c := range []struct {
		ratio  float64
		target string
		short  bool
	}{
		{8, ">= 8", false}, {7.9, ">= 8", true}, {0, "<= 0", false}, {1, "<= 0", true}, {1, "", false}, {1, "fast", true},
	} {
		if f := (Figure{Ratio: c.ratio, Target: c.target}); f.Short() != c.short {
			t.Errorf("%v against %q: %v", c.ratio, c.target, f.Short())
		}
	}
}

func TestFiguresOfARunAreCollected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	t.Setenv("BENCH_JSON", path)
	Report(t, Against("a", 10, 2, "ns", ">= 5"))
	Report(t, Alone("b", 1, "allocs", "<= 0"))
	Report(t, Against("a", 30, 2, "ns", ">= 5"))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); strings.Count(s, `"name"`) != 2 || !strings.Contains(s, `"ratio": 15`) || strings.Contains(s, `"ratio": 5,`) {
		t.Errorf("%s", s)
	}
}
