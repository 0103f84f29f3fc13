package kopiaengine

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	// maxPath is how long a path may be, in bytes, where it is told. Those of a
	// volume have no bound: what opens folder by folder goes as deep as it likes.
	maxPath = 256
	// maxMessage is how long an error may be, in bytes, whatever it quotes.
	maxMessage = 4 << 10
	cut        = "…"
)

// quote returns a path as a Go string of at most maxPath bytes. Of a longer one, it is
// the end that tells entries apart.
func quote(path string) string {
	if len(path) <= maxPath {
		if q := strconv.Quote(path); len(q) <= maxPath {
			return q
		}
	}

	room := maxPath - len(strconv.Quote(cut))
	start := len(path)

	for start > 0 {
		_, size := utf8.DecodeLastRuneInString(path[:start])
		room -= len(strconv.Quote(path[start-size:start])) - len(`""`)

		if room < 0 {
			break
		}

		start -= size
	}

	return strconv.Quote(cut + path[start:])
}

// shortened is an error whose message was too long.
type shortened struct {
	error
}

// shorten bounds the message of an error, and leaves all else of it as it is.
func shorten(err error) error {
	if err == nil || len(err.Error()) <= maxMessage {
		return err
	}

	return shortened{err}
}

// Error returns the beginning of the message.
func (e shortened) Error() string {
	return strings.ToValidUTF8(e.error.Error()[:maxMessage-len(cut)], "") + cut
}

// Unwrap returns the error itself.
func (e shortened) Unwrap() error { return e.error }

// omissions counts what could not be kept. It is for any number of goroutines.
type omissions struct {
	mu  sync.Mutex
	all map[engine.OmissionReason]*engine.Omission
}

// add counts one entry, named by its raw path relative to the root.
func (o *omissions) add(reason engine.OmissionReason, path string) {
	o.mu.Lock()
	defer o.mu.Unlock()

	if o.all == nil {
		o.all = map[engine.OmissionReason]*engine.Omission{}
	}

	m := o.all[reason]
	if m == nil {
		m = &engine.Omission{Reason: reason}
		o.all[reason] = m
	}

	m.Count++

	if len(m.Examples) < engine.MaxExamples {
		m.Examples = append(m.Examples, quote(path))
	}
}

// list returns them in the order of their reasons.
func (o *omissions) list() []engine.Omission {
	o.mu.Lock()
	defer o.mu.Unlock()

	list := make([]engine.Omission, 0, len(o.all))
	for _, m := range o.all {
		list = append(list, *m)
	}

	slices.SortFunc(list, func(a, b engine.Omission) int { return strings.Compare(string(a.Reason), string(b.Reason)) })

	return list
}
