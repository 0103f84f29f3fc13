package kopiaengine

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/estiba-dev/estiba/mover/engine"
)

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
		m.Examples = append(m.Examples, strconv.Quote(path))
	}
}

// list gives them in the order of their reasons.
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
