package keys

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/credentials"
)

// manifest gives the Secret with the key, ready to apply. It is not made of the
// Secret that is there: nothing of that but the key is of use elsewhere.
func manifest(f found) ([]byte, error) {
	fingerprint, err := f.key.Fingerprint()
	if err != nil {
		return nil, fmt.Errorf("fingerprint of the master key: %w", err)
	}

	m, err := yaml.Marshal(map[string]any{
		"apiVersion": corev1.SchemeGroupVersion.String(),
		"kind":       "Secret",
		"metadata": map[string]any{
			"name":      contract.MasterKeySecret,
			"namespace": f.namespace,
			"labels":    map[string]string{contract.LabelExcludeFromBackup: "true"},
		},
		"type": corev1.SecretTypeOpaque,
		"data": map[string][]byte{contract.MasterKeySecretKey: f.key.Encode()},
	})
	if err != nil {
		return nil, errors.New("encode the Secret") // the reason might quote it
	}

	return fmt.Appendf(nil, "# The master key of Estiba's backups; its fingerprint is %s.\n%s", fingerprint, m), nil
}

// parse reads a key from a file: a manifest of the Secret in YAML or JSON, or
// the key alone, in base64 as the Secret's data hold it when they are decoded.
func parse(content []byte) (found, error) {
	var s corev1.Secret

	// The errors of the parser may quote what they can't read.
	if err := yaml.Unmarshal(content, &s); err != nil || s.Kind != "Secret" {
		key, err := credentials.ParseMasterKey(content)
		if err != nil {
			return found{}, fmt.Errorf("it is no manifest of a Secret, and taken for the key alone, %w", err)
		}

		return found{key: key}, nil
	}

	key, err := fromSecret(&s)

	return found{key, s.Namespace}, err
}

func fromSecret(s *corev1.Secret) (credentials.MasterKey, error) {
	encoded := s.Data[contract.MasterKeySecretKey]
	if text, ok := s.StringData[contract.MasterKeySecretKey]; ok {
		encoded = []byte(text) // as the API server has it
	}

	if len(encoded) == 0 {
		return credentials.MasterKey{}, fmt.Errorf("Secret %s has no key %q", s.Name, contract.MasterKeySecretKey) //nolint:staticcheck // a kind's name
	}

	key, err := credentials.ParseMasterKey(encoded)
	if err != nil {
		return credentials.MasterKey{}, fmt.Errorf("key %s of Secret %s: %w", contract.MasterKeySecretKey, s.Name, err)
	}

	return key, nil
}
