package contract_test

import (
	"encoding/json"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestTheBucketHasItsLayout(t *testing.T) {
	folder, err := contract.RepositoriesPath("shop")
	require.NoError(t, err)
	repository, err := contract.RepositoryPath("shop", id)
	require.NoError(t, err)
	key, err := contract.KeyPath("shop", id)
	require.NoError(t, err)
	content, err := json.Marshal(contract.KeyFile{Version: 1, Fingerprint: "00ff", Created: "2026-01-02T03:04:05Z"})
	require.NoError(t, err)

	golden(t, "layout.v1.txt", strings.Join([]string{
		contract.Root, folder, repository, contract.KeysPath(), key, contract.BackupMarkerPath("nightly"), string(content),
	}, "\n"))

	// What is relied on when a path is shown to be inside of another.
	assert.True(t, strings.HasPrefix(repository, folder))
	assert.True(t, strings.HasPrefix(folder, contract.Root))
	assert.True(t, strings.HasPrefix(key, contract.KeysPath()))
}

func TestNamesThatDoNotBelongIntoABucketAreRefused(t *testing.T) {
	for name, test := range map[string]struct{ namespace, id string }{
		"no namespace":                 {"", id},
		"a namespace that climbs":      {"..", id},
		"a namespace with a slash":     {"a/b", id},
		"a namespace with upper case":  {"Shop", id},
		"a namespace that is too long": {strings.Repeat("a", 64), id},
		"a namespace ending in a dash": {"a-", id},
		"no ID":                        {"shop", ""},
		"an ID that is too short":      {"shop", id[1:]},
		"an ID that is too long":       {"shop", id + "a"},
		"an ID with a line after it":   {"shop", id + "\n"},
		"an ID with upper case":        {"shop", strings.ToUpper(id)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := contract.RepositoryPath(test.namespace, test.id)
			require.Error(t, err)

			_, err = contract.KeyPath(test.namespace, test.id)
			require.Error(t, err)
		})
	}
}

func TestTagsHaveTheirNames(t *testing.T) {
	tags := contract.Snapshot{
		Job: "vb-1", Backup: contract.Owner{Name: "nightly", UID: "uid-1"}, Instance: "pvc/1/2", Namespace: "shop", Pod: "web-0", Volume: "data",
	}.Tags()

	lines := make([]string, 0, len(tags))
	for k, v := range tags {
		lines = append(lines, k+"="+v)
	}

	sort.Strings(lines)
	golden(t, "tags.v1.txt", strings.Join(lines, "\n"))
}
