package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/estiba-dev/estiba/mover/contract"
)

// survey is what lies in a bucket, as far as one namespace's repository goes.
type survey struct {
	// ours are the IDs whose key file holds a fingerprint of ours, in order, and under which it holds.
	ours  []string
	under map[string]string
	// made are the IDs that have a folder.
	made []string
	// keyed reports whether any namespace has a key file.
	keyed bool
	// fits reports whether any of them is of our key.
	fits bool
	// foreign is the fingerprint of some key file that is not of our key.
	foreign string
}

// prints are the fingerprints of the master keys that we hold; empty for none.
type prints struct{ current, previous string }

// has reports whether the fingerprint is one of ours. An empty one is nobody's.
func (p prints) has(fingerprint string) bool {
	return fingerprint != "" && (fingerprint == p.current || fingerprint == p.previous)
}

// look reads what lies in the bucket.
func look(ctx context.Context, b Bucket, namespace string, ours prints) (survey, error) {
	s := survey{under: map[string]string{}}

	folder, err := contract.RepositoriesPath(namespace)
	if err != nil {
		return s, fmt.Errorf("folder of the repositories: %w", err)
	}

	if s.made, _, err = b.List(ctx, folder); err != nil {
		return s, fmt.Errorf("list repositories of namespace %s: %w", namespace, err)
	}

	namespaces, _, err := b.List(ctx, contract.KeysPath())
	if err != nil {
		return s, fmt.Errorf("list key fingerprints: %w", err)
	}

	// Our own namespace first: where it holds a key of ours, nothing else needs to be read.
	slices.SortFunc(namespaces, func(x, y string) int {
		switch {
		case x == namespace:
			return -1
		case y == namespace:
			return 1
		default:
			return strings.Compare(x, y)
		}
	})

	for _, n := range namespaces {
		if err := s.keys(ctx, b, n, namespace, ours); err != nil {
			return s, err
		}

		if s.fits {
			break
		}
	}

	slices.Sort(s.ours)

	return s, nil
}

// keys takes the key files of one namespace in.
func (s *survey) keys(ctx context.Context, b Bucket, of, namespace string, ours prints) error {
	found, err := readKeys(ctx, b, of)
	if err != nil {
		return err
	}

	for id, fingerprint := range found {
		s.keyed = true

		if !ours.has(fingerprint) {
			s.foreign = fingerprint
			continue
		}

		s.fits = true

		if of == namespace {
			s.ours = append(s.ours, id)
			s.under[id] = fingerprint
		}
	}

	return nil
}

// readKeys returns the fingerprints of a namespace's repositories, by their IDs.
func readKeys(ctx context.Context, b Bucket, namespace string) (map[string]string, error) {
	_, files, err := b.List(ctx, contract.KeysPath()+namespace+"/")
	if err != nil {
		return nil, fmt.Errorf("list key fingerprints of namespace %s: %w", namespace, err)
	}

	found := map[string]string{}

	for _, f := range files {
		id, isKey := strings.CutSuffix(f, ".json")

		path, err := contract.KeyPath(namespace, id)
		if !isKey || err != nil {
			continue
		}

		k, err := readKey(ctx, b, path)
		if errors.Is(err, ErrObjectNotFound) {
			continue
		}

		if err != nil {
			return nil, err
		}

		found[id] = k.Fingerprint
	}

	return found, nil
}

func readKey(ctx context.Context, b Bucket, path string) (contract.KeyFile, error) {
	var k contract.KeyFile

	content, err := b.Get(ctx, path)
	if err != nil {
		return k, fmt.Errorf("read key fingerprint %s: %w", path, err)
	}

	if err := json.Unmarshal(content, &k); err != nil {
		return k, fmt.Errorf("read key fingerprint %s: %w", path, err)
	}

	return k, nil
}

// choose returns the repository to use: the one that was used before if it is
// still there, else the smallest that is, so that two controllers choose the same;
// and where there is none, the one that was reserved here, of which nobody else may make one.
func (s survey) choose(before, reserved string) string {
	there := slices.DeleteFunc(slices.Clone(s.ours), func(id string) bool { return !slices.Contains(s.made, id) })

	switch {
	case slices.Contains(there, before):
		return before
	case len(there) > 0:
		return there[0]
	case slices.Contains(s.ours, reserved):
		return reserved
	default:
		return ""
	}
}

// left returns the repositories that are under the fingerprint, the given one first.
func (s survey) left(fingerprint, first string) []string {
	left := slices.DeleteFunc(slices.Clone(s.ours), func(id string) bool { return s.under[id] != fingerprint || !slices.Contains(s.made, id) })
	if i := slices.Index(left, first); i > 0 {
		left[0], left[i] = left[i], left[0]
	}

	return left
}
