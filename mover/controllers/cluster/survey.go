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
	// ours are the IDs whose key file holds our fingerprint, in order.
	ours []string
	// made are the IDs that have a folder.
	made []string
	// keyed tells whether any namespace has a key file.
	keyed bool
	// fits tells whether any of them is of our key.
	fits bool
	// foreign is the fingerprint of some key file that is not of our key.
	foreign string
}

// look reads what lies in the bucket. An empty fingerprint is nobody's.
func look(ctx context.Context, b Bucket, namespace, fingerprint string) (survey, error) {
	var s survey

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
		if err := s.keys(ctx, b, n, namespace, fingerprint); err != nil {
			return s, err
		}

		if s.fits {
			break
		}
	}

	slices.Sort(s.ours)

	return s, nil
}

// keys reads the key files of one namespace.
func (s *survey) keys(ctx context.Context, b Bucket, of, namespace, fingerprint string) error {
	_, files, err := b.List(ctx, contract.KeysPath()+of+"/")
	if err != nil {
		return fmt.Errorf("list key fingerprints of namespace %s: %w", of, err)
	}

	for _, f := range files {
		id, isKey := strings.CutSuffix(f, ".json")

		path, err := contract.KeyPath(of, id)
		if !isKey || err != nil {
			continue
		}

		found, err := readKey(ctx, b, path)
		if errors.Is(err, ErrObjectNotFound) {
			continue
		}

		if err != nil {
			return err
		}

		s.keyed = true

		if found != fingerprint || fingerprint == "" {
			s.foreign = found
			continue
		}

		s.fits = true

		if of == namespace {
			s.ours = append(s.ours, id)
		}
	}

	return nil
}

func readKey(ctx context.Context, b Bucket, path string) (string, error) {
	content, err := b.Get(ctx, path)
	if err != nil {
		return "", fmt.Errorf("read key fingerprint %s: %w", path, err)
	}

	var k contract.KeyFile
	if err := json.Unmarshal(content, &k); err != nil {
		return "", fmt.Errorf("read key fingerprint %s: %w", path, err)
	}

	return k.Fingerprint, nil
}

// choose gives the repository to use: the one that was used before if it is
// still there, else the smallest, so that two controllers choose the same.
func (s survey) choose(before string) string {
	if slices.Contains(s.ours, before) {
		return before
	}

	if len(s.ours) == 0 {
		return ""
	}

	return s.ours[0]
}
