// Package podlist shares lists of a namespace's pods among those who look at them at the same time: hundreds of jobs
// may be about volumes of one namespace, and each has to see all of its pods. How old a list may be is the caller's to
// say. The package must decide nothing.
package podlist

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Lists holds the last list of each namespace that was asked for a short while ago.
type Lists struct {
	reader client.Reader
	clock  clock.WithDelayedExecution

	mu    sync.Mutex
	lists map[string]*list
	// changed is when something was heard of a pod of the namespace, while there is a list of it.
	changed map[string]time.Time
}

// list is one answer of the API server, or one that is on its way.
type list struct {
	begun time.Time
	done  chan struct{}
	pods  []corev1.Pod
	err   error
}

// keep is how long a list is held: no caller takes an older one, and a large namespace is much to hold.
const keep = 15 * time.Second

// New returns Lists that read with the reader.
func New(reader client.Reader, c clock.WithDelayedExecution) *Lists {
	return &Lists{reader: reader, clock: c, lists: map[string]*list{}, changed: map[string]time.Time{}}
}

// Age says how old a list may be.
type Age struct {
	// Most is how old it may be while nothing was heard of the namespace's pods since.
	Most time.Duration
	// Changed is how old it may be although something was.
	Changed time.Duration
}

// Changed takes note that something was heard of a pod of the namespace.
func (l *Lists) Changed(namespace string) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.lists[namespace] != nil {
		l.changed[namespace] = l.clock.Now()
	}
}

// In returns the pods of the namespace, which nobody may change. Stale reports that something was heard of them since.
func (l *Lists) In(ctx context.Context, namespace string, age Age) (pods []corev1.Pod, stale bool, err error) {
	got, mine := l.take(namespace, age)
	if mine {
		l.fetch(ctx, namespace, got)
	}

	select {
	case <-got.done:
	case <-ctx.Done():
		return nil, false, fmt.Errorf("list pods of namespace %s: %w", namespace, ctx.Err())
	}

	if got.err != nil && !mine {
		// It was another's call that failed, perhaps because that one was in a hurry.
		got = l.replace(namespace)
		l.fetch(ctx, namespace, got)
	}

	l.mu.Lock()
	defer l.mu.Unlock()

	return got.pods, l.changed[namespace].After(got.begun), got.err
}

// take returns the list to wait for, and reports whether the caller is the one to fetch it.
func (l *Lists) take(namespace string, age Age) (*list, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()

	now := l.clock.Now()

	if have, ok := l.lists[namespace]; ok {
		most := age.Most
		if l.changed[namespace].After(have.begun) {
			most = age.Changed
		}

		if old := now.Sub(have.begun); most > 0 && old <= most {
			return have, false
		}
	}

	return l.begin(namespace, now), true
}

func (l *Lists) replace(namespace string) *list {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.begin(namespace, l.clock.Now())
}

func (l *Lists) begin(namespace string, now time.Time) *list {
	begun := &list{begun: now, done: make(chan struct{})}
	l.lists[namespace] = begun

	return begun
}

// drop lets go of the list, unless another one is in its place.
func (l *Lists) drop(namespace string, gone *list) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.lists[namespace] == gone {
		delete(l.lists, namespace)
		delete(l.changed, namespace)
	}
}

func (l *Lists) fetch(ctx context.Context, namespace string, into *list) {
	var got corev1.PodList

	if err := l.reader.List(ctx, &got, client.InNamespace(namespace)); err != nil {
		into.err = fmt.Errorf("list pods of namespace %s: %w", namespace, err)
	}

	for i := range got.Items {
		// Nobody decides anything by it, and it is half of a pod.
		got.Items[i].ManagedFields = nil
	}

	into.pods = got.Items
	close(into.done)

	if into.err != nil {
		l.drop(namespace, into)
		return
	}

	l.clock.AfterFunc(keep, func() { l.drop(namespace, into) })
}
