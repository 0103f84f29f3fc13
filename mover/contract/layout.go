package contract

import (
	"fmt"
	"regexp"
	"strings"
)

// Root is the folder of all that Estiba keeps, below a backup storage
// location's prefix. Velero marks a location unavailable when it finds a
// top-level folder that it doesn't know; "plugins" is one that it knows
// (velero v1.18.3 pkg/persistence/object_store_layout.go).
const Root = "plugins/estiba/"

const (
	repositoriesFolder = Root + "repositories/"
	keysFolder         = Root + "keys/"
)

var (
	repositoryID  = regexp.MustCompile(`^[a-z2-7]{26}$`)
	namespaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// RepositoriesPath returns the folder of a namespace's repositories, with a slash at its end.
func RepositoriesPath(namespace string) (string, error) {
	if !namespaceName.MatchString(namespace) {
		return "", fmt.Errorf("%q is not a namespace's name", namespace)
	}

	return repositoriesFolder + namespace + "/", nil
}

// RepositoryPath returns the folder of one repository, with a slash at its end.
func RepositoryPath(namespace, id string) (string, error) {
	folder, err := RepositoriesPath(namespace)
	if err != nil {
		return "", err
	}

	if !repositoryID.MatchString(id) {
		return "", fmt.Errorf("%q is not a repository ID (26 characters a-z and 2-7)", id)
	}

	return folder + id + "/", nil
}

// KeysPath returns the folder that holds the fingerprints of all repositories, with a slash at its end.
func KeysPath() string { return keysFolder }

// KeyPath returns the path of the file that tells which master key a repository is under.
func KeyPath(namespace, id string) (string, error) {
	path, err := RepositoryPath(namespace, id)
	if err != nil {
		return "", err
	}

	return keysFolder + strings.TrimSuffix(strings.TrimPrefix(path, repositoriesFolder), "/") + ".json", nil
}

// BackupMarkerPath returns the path of the file by which Velero keeps a backup:
// the owner of a snapshot lives as long as this exists
// (velero v1.18.3 pkg/persistence/object_store_layout.go).
func BackupMarkerPath(backup string) string {
	return "backups/" + backup + "/velero-backup.json"
}

// KeyFile is the content of the file at KeyPath.
type KeyFile struct {
	Version int `json:"version"`
	// Fingerprint of the master key.
	Fingerprint string `json:"fingerprint"`
	// Created is when the repository was made, in RFC 3339.
	Created string `json:"created"`
}
