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

func (k *keys) read(ctx context.Context) (credentials.MasterKey, error) {
	var s corev1.Secret

	err := k.reader.Get(ctx, types.NamespacedName{Namespace: k.namespace, Name: contract.MasterKeySecret}, &s)
	if apierrors.IsNotFound(err) {
		return credentials.MasterKey{}, fmt.Errorf("Secret %s/%s: %w", k.namespace, contract.MasterKeySecret, cluster.ErrKeyMissing) //nolint:staticcheck // a kind's name
	}

	if err != nil {
		return credentials.MasterKey{}, fmt.Errorf("read Secret %s/%s: %w", k.namespace, contract.MasterKeySecret, err)
	}

	key, err := credentials.ParseMasterKey(s.Data[contract.MasterKeySecretKey])
	if err != nil {
		return credentials.MasterKey{}, fmt.Errorf("key %s of Secret %s/%s: %w: %w", contract.MasterKeySecretKey, k.namespace, contract.MasterKeySecret, cluster.ErrKeyInvalid, err)
	}

	return key, nil
}

// Fingerprint tells which master key there is.
func (k *keys) Fingerprint(ctx context.Context) (string, error) {
	key, err := k.read(ctx)
	if err != nil {
		return "", err
	}

	f, err := key.Fingerprint()
	if err != nil {
		return "", fmt.Errorf("fingerprint of the master key: %w", err)
	}

	return f, nil
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

// password gives the password of a repository.
func (k *keys) password(ctx context.Context, repositoryID string) (string, error) {
	key, err := k.read(ctx)
	if err != nil {
		return "", err
	}

	p, err := key.RepositoryPassword(repositoryID)
	if err != nil {
		return "", fmt.Errorf("password of repository %s: %w", repositoryID, err)
	}

	return p, nil
}

func permanentKeyError(err error) bool {
	return errors.Is(err, cluster.ErrKeyMissing) || errors.Is(err, cluster.ErrKeyInvalid)
}
