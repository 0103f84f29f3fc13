// Package credentials turns what Velero and the cluster hold into what package
// store wants: a BackupStorageLocation and its Secrets into settings and
// credentials, and the install's master key into the passwords of repositories.
//
// It computes and parses; it reads Secrets, files, the environment and the
// network only through what it is given (Surroundings). It must not import
// kopia, and it must never put a secret into an error or a String.
package credentials
