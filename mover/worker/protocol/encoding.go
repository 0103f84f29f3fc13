package protocol

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
)

// MaxLine bounds a report, in bytes: a worker that was taken over must not be
// able to fill the daemon's memory.
const MaxLine = 4 << 20

// WriteRequest writes the document.
func WriteRequest(w io.Writer, r Request) error {
	r.Version = Version

	if err := json.NewEncoder(w).Encode(r); err != nil { //nolint:gosec // the pipe to the worker is how it gets the password
		return fmt.Errorf("write the worker's request: %w", err)
	}

	return nil
}

// ReadRequest reads the document and checks it. Where the document itself is
// wrong, the error is an *engine.Error of code CodeInvalidRequest.
func ReadRequest(r io.Reader) (Request, error) {
	var q Request
	if err := json.NewDecoder(r).Decode(&q); err != nil {
		return Request{}, fmt.Errorf("read the worker's request: %w", err)
	}

	return q, q.Validate()
}

// WritePermit lets a restore write, or with an error keeps it from that.
func WritePermit(w io.Writer, refused error) error {
	var p Permit
	if refused != nil {
		p.Refused = refused.Error()
	}

	if err := json.NewEncoder(w).Encode(p); err != nil {
		return fmt.Errorf("write the worker's permit: %w", err)
	}

	return nil
}

// ReadPermit waits for the permit. The end of the input is none.
func ReadPermit(r io.Reader) error {
	var p Permit
	if err := json.NewDecoder(r).Decode(&p); err != nil {
		return fmt.Errorf("read the worker's permit: %w", err)
	}

	if p.Refused != "" {
		return errors.New(p.Refused)
	}

	return nil
}

// Reporter writes reports. It may be used by several goroutines at a time.
type Reporter struct {
	mu sync.Mutex
	w  io.Writer
}

// NewReporter makes a Reporter that writes to w.
func NewReporter(w io.Writer) *Reporter { return &Reporter{w: w} }

// Report writes one line.
func (r *Reporter) Report(p Report) error {
	p.Version = Version

	line, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	if _, err := r.w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write report: %w", err)
	}

	return nil
}

// ReadReports reads reports until the end and hands each to take. It returns nil
// at the end of the input, and an error for a line that is not a report.
func ReadReports(r io.Reader, take func(Report)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), MaxLine)

	for lines.Scan() {
		if crowded(lines.Bytes()) {
			return fmt.Errorf("read the worker's report: it has more than %d values", maxValues)
		}

		var p Report
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return fmt.Errorf("read the worker's report: %w", err)
		}

		if p.Version != Version {
			return fmt.Errorf("read the worker's report: version is %d, expected %d", p.Version, Version)
		}

		if err := p.Validate(); err != nil {
			return fmt.Errorf("read the worker's report: %w", err)
		}

		take(p)
	}

	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the worker's report: %w", err)
	}

	return nil
}

// Surroundings is what the first stage must know before the request is read. It
// stands in the arguments, so it holds nothing secret.
type Surroundings struct {
	Verb Verb
	// CacheDir is the only folder besides the volume that the worker may use.
	CacheDir string
	// Strict refuses to go on without Landlock.
	Strict bool
	// Parent is the process ID of the daemon: a worker whose parent is another one has outlived it.
	Parent int
	// Fences is what the first stage reports to the second, as JSON; empty before.
	Fences string
}

// Args returns the arguments that ParseSurroundings reads, without the command's name.
func (s Surroundings) Args() []string {
	args := []string{"--verb=" + string(s.Verb), "--cache=" + s.CacheDir, fmt.Sprintf("--parent=%d", s.Parent)}
	if s.Strict {
		args = append(args, "--strict")
	}

	if s.Fences != "" {
		args = append(args, "--fences="+s.Fences)
	}

	return args
}

// ParseSurroundings reads the arguments of either stage.
func ParseSurroundings(args []string) (Surroundings, error) {
	var s Surroundings

	flags := flag.NewFlagSet(CommandLockIn, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar((*string)(&s.Verb), "verb", "", "what the worker is to do")
	flags.StringVar(&s.CacheDir, "cache", "", "folder of the repository's cache")
	flags.BoolVar(&s.Strict, "strict", false, "refuse to work where a fence is missing")
	flags.IntVar(&s.Parent, "parent", 0, "process ID of the daemon")
	flags.StringVar(&s.Fences, "fences", "", "what the first stage reports")

	if err := flags.Parse(args); err != nil {
		return Surroundings{}, fmt.Errorf("arguments of the worker: %w", err)
	}

	switch {
	case flags.NArg() > 0:
		return Surroundings{}, fmt.Errorf("arguments of the worker: %q is not expected", flags.Arg(0))
	case !s.Verb.Known():
		return Surroundings{}, fmt.Errorf("arguments of the worker: verb %q is unknown", s.Verb)
	case s.CacheDir == "":
		return Surroundings{}, errors.New("arguments of the worker: --cache is missing")
	}

	return s, nil
}
