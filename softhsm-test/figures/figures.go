// Package figures measures what the appliance promises of its speed, and says where it falls short.
//
// A figure is a ratio of two measurements that take turns in one run: absolute times move with the machine. `make
// bench` prints the tables; the variable BENCH_JSON names a file that collects all figures of a run as well.
package figures

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"text/tabwriter"
	"time"
)

// Figure is one line of the table.
type Figure struct {
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Baseline float64 `json:"baseline"` // in the same unit; 0 where the value stands alone
	Ratio    float64 `json:"ratio"`    // value to baseline, or the value itself
	Target   string  `json:"target"`   // what is promised of the ratio, as in ">= 8" or "<= 0"
}

// Against returns a figure whose target is for the ratio of value to baseline.
func Against(name string, value, baseline float64, unit, target string) Figure {
	return Figure{name, value, unit, baseline, value / baseline, target}
}

// Alone returns a figure whose target is for the value.
func Alone(name string, value float64, unit, target string) Figure {
	return Figure{name, value, unit, 0, value, target}
}

// Short reports whether the figure falls short of its target.
func (f Figure) Short() bool {
	var bound float64
	var comparison string
	if n, err := fmt.Sscanf(f.Target, "%s %g", &comparison, &bound); n != 2 || err != nil {
		return f.Target != ""
	}
	if comparison == "<=" {
		return f.Ratio > bound
	}
	return f.Ratio < bound
}

// Report prints the figures, marks those that fall short, and adds them to the file BENCH_JSON.
func Report(t testing.TB, figures ...Figure) {
	t.Helper()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(table, "figure\tvalue\tbaseline\tratio\ttarget\t\t")
	for _, f := range figures {
		mark, baseline := "", "-"
		if f.Short() {
			mark = "FALLS SHORT"
		}
		if f.Baseline != 0 {
			baseline = number(f.Baseline)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s %s\t%s\t%s\t%s\t%s\t\n", f.Name, number(f.Value), f.Unit, baseline, number(f.Ratio), f.Target, mark)
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	if path := os.Getenv("BENCH_JSON"); path != "" {
		if err := add(path, figures); err != nil {
			t.Fatal(err)
		}
	}
}

func number(v float64) string {
	switch {
	case v == 0 || v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

func add(path string, figures []Figure) error {
	var all []Figure
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(text, &all); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	all = slices.DeleteFunc(all, func(old Figure) bool {
		return slices.ContainsFunc(figures, func(f Figure) bool { return f.Name == old.Name })
	})
	if text, err = json.MarshalIndent(append(all, figures...), "", "  "); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Turns measures several ways to do a thing in turns, so that a busy machine is busy for all of them, and returns the
// operations a second of each: the median of the rounds. A way does n operations when it is called.
func Turns(t testing.TB, ways ...func(n int) error) []float64 {
	t.Helper()
	const rounds, roundTime = 9, 60 * time.Millisecond
	rates := make([][]float64, len(ways))
	sizes := make([]int, len(ways))
	for i, way := range ways {
		sizes[i] = calibrate(t, way, roundTime)
	}
	for range rounds {
		for i, way := range ways {
			rates[i] = append(rates[i], float64(sizes[i])/timed(t, way, sizes[i]).Seconds())
		}
	}
	medians := make([]float64, len(ways))
	for i := range rates {
		slices.Sort(rates[i])
		medians[i] = rates[i][rounds/2]
	}
	return medians
}

// calibrate finds how many operations fill a round.
func calibrate(t testing.TB, way func(int) error, round time.Duration) int {
	t.Helper()
	for n := 64; ; n *= 2 {
		if took := timed(t, way, n); took >= round/4 {
			return max(64, int(float64(n)*round.Seconds()/took.Seconds()))
		}
	}
}

func timed(t testing.TB, way func(int) error, n int) time.Duration {
	t.Helper()
	begun := time.Now()
	if err := way(n); err != nil {
		t.Fatal(err)
	}
	return time.Since(begun)
}

// Among lets so many goroutines share n operations.
func Among(goroutines int, operation func() error) func(n int) error {
	return func(n int) error {
		failures := make(chan error, goroutines)
		for i := range goroutines {
			share := n / goroutines
			if i < n%goroutines {
				share++
			}
			go func() {
				var err error
				for ; share > 0 && err == nil; share-- {
					err = operation()
				}
				failures <- err
			}()
		}
		var err error
		for range goroutines {
			err = errors.Join(err, <-failures)
		}
		return err
	}
}

// Times repeats an operation n times.
func Times(operation func() error) func(n int) error {
	return func(n int) error {
		for ; n > 0; n-- {
			if err := operation(); err != nil {
				return err
			}
		}
		return nil
	}
}
