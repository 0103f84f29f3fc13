package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// tally counts tests. Subtests count as tests of their own; a test that has subtests does not count beside them.
type tally struct{ passed, failed, skipped int }

func (t *tally) add(o tally) {
	t.passed += o.passed
	t.failed += o.failed
	t.skipped += o.skipped
}

func (t tally) String() string {
	s := fmt.Sprintf("%d passed, %d failed", t.passed, t.failed)
	if t.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", t.skipped)
	}

	return s
}

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
	// Elapsed is in seconds.
	Elapsed float64
}

// longTest is from how many seconds on a test gets a line of its own, so that a stage of a few long ones is seen to move.
const longTest = 3

// read counts the tests of a `go test -json` stream, and copies to w what is
// worth seeing: the output of what failed or was skipped, and lines that are no events.
func read(r io.Reader, w io.Writer) tally {
	var (
		result  tally
		outputs = map[string][]string{}
		parents = map[string]bool{}
		lines   = bufio.NewReader(r)
	)

	for {
		line, err := lines.ReadBytes('\n')

		var e event
		if len(line) > 0 {
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				_, _ = w.Write(line)
			} else {
				result.note(e, outputs, parents, w)
			}
		}

		if err != nil {
			return result
		}
	}
}

func (t *tally) note(e event, outputs map[string][]string, parents map[string]bool, w io.Writer) {
	key := e.Package + "\x00" + e.Test

	switch e.Action {
	case "output":
		outputs[key] = append(outputs[key], e.Output)

		if strings.Contains(e.Output, "[story] ") {
			_, _ = io.WriteString(w, e.Output)
		}
	case "build-output":
		_, _ = io.WriteString(w, e.Output)
	case "run":
		if i := strings.LastIndex(e.Test, "/"); i > 0 {
			parents[e.Package+"\x00"+e.Test[:i]] = true
		}
	case "pass", "fail", "skip":
		t.end(e, parents[key], outputs[key], w)
		delete(outputs, key)
	}
}

func (t *tally) end(e event, parent bool, output []string, w io.Writer) {
	// A package without tests is "skipped", which is not worth a word.
	if e.Action == "fail" || (e.Action == "skip" && e.Test != "") {
		_, _ = io.WriteString(w, strings.Join(output, ""))
	}

	if e.Test != "" && e.Elapsed >= longTest {
		_, _ = fmt.Fprintf(w, "%s %s (%.0f s)\n", e.Action, e.Test, e.Elapsed)
	}

	switch {
	case e.Test == "" && e.Action == "fail":
		_, _ = fmt.Fprintf(w, "FAIL %s\n", e.Package)
		// The package's failing tests are counted by themselves; a package that
		// fails without one (it does not compile, it panics) must count, too.
		if t.failed == 0 {
			t.failed++
		}
	case e.Test == "":
		_, _ = fmt.Fprintf(w, "ok   %s\n", e.Package)
	case parent && e.Action == "pass":
	case e.Action == "pass":
		t.passed++
	case e.Action == "fail":
		t.failed++
	default:
		t.skipped++
	}
}
