package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/cluster"
	"github.com/estiba-dev/estiba/mover/credentials"
)

// keys reads the master key's Secret; it is kept nowhere else.
type keys struct {
	reader    client.Reader
	writer    client.Writer // nil where the key is only read
	namespace string
}

// pair is the current master key, and the previous one as long as it is kept; zero otherwise.
type pair struct{ current, previous credentials.MasterKey }

func (k *keys) read(ctx context.Context) (pair, error) {
	var (
		s corev1.Secret
		p pair
	)

	err := k.reader.Get(ctx, types.NamespacedName{Namespace: k.namespace, Name: contract.MasterKeySecret}, &s)
	if apierrors.IsNotFound(err) {
		return p, fmt.Errorf("Secret %s/%s: %w", k.namespace, contract.MasterKeySecret, cluster.ErrKeyMissing) //nolint:staticcheck // a kind's name
	}

	if err != nil {
		return p, fmt.Errorf("read Secret %s/%s: %w", k.namespace, contract.MasterKeySecret, err)
	}

	for name, into := range map[string]*credentials.MasterKey{contract.MasterKeySecretKey: &p.current, contract.MasterKeySecretPrevious: &p.previous} {
		encoded := s.Data[name]
		if len(encoded) == 0 && name == contract.MasterKeySecretPrevious {
			continue
		}

		if *into, err = credentials.ParseMasterKey(encoded); err != nil {
			return pair{}, fmt.Errorf("key %s of Secret %s/%s: %w: %w", name, k.namespace, contract.MasterKeySecret, cluster.ErrKeyInvalid, err)
		}
	}

	return p, nil
}

// Fingerprints returns which master key there is, and which one was before.
func (k *keys) Fingerprints(ctx context.Context) (current, previous string, err error) {
	p, err := k.read(ctx)
	if err == nil {
		current, err = p.current.Fingerprint()
	}

	if err == nil && !p.previous.IsZero() {
		previous, err = p.previous.Fingerprint()
	}

	if err != nil {
		return "", "", fmt.Errorf("fingerprint of the master key: %w", err)
	}

	return current, previous, nil
}

// Create makes a master key, unless there is one by now.
func (k *keys) Create(ctx context.Context) error {
	key, err := credentials.NewMasterKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a master key: %w", err)
	}

	err = k.writer.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: k.namespace, Name: contract.MasterKeySecret,
			// A backup that holds its own key protects nothing.
			Labels: map[string]string{contract.LabelExcludeFromBackup: "true"},
		},
		Data: map[string][]byte{contract.MasterKeySecretKey: key.Encode()},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create Secret %s/%s: %w", k.namespace, contract.MasterKeySecret, err)
	}

	return nil
}

// passwords returns the password of a repository, and the one that it may still have; empty if there is no previous key.
func (k *keys) passwords(ctx context.Context, repositoryID string) (current, previous string, err error) {
	p, err := k.read(ctx)
	if err != nil {
		return "", "", err
	}

	current, err = p.current.RepositoryPassword(repositoryID)
	if err == nil && !p.previous.IsZero() {
		previous, err = p.previous.RepositoryPassword(repositoryID)
	}

	if err != nil {
		return "", "", fmt.Errorf("password of repository %s: %w", repositoryID, err)
	}

	return current, previous, nil
}

func permanentKeyError(err error) bool {
	return errors.Is(err, cluster.ErrKeyMissing) || errors.Is(err, cluster.ErrKeyInvalid)
}
