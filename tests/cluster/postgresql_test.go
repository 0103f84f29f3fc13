package cluster

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestServerPackages(t *testing.T) {
	t.Parallel()

	simulation := `Reading package lists...
Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])
Inst zlib1g (1:1.2.13.dfsg-1 Debian:12.15/oldstable [amd64])
Inst perl (5.36.0-7+deb12u3 Debian:12.15/oldstable [amd64])
Inst libjson-perl (4.10000-1 Debian:12.15/oldstable [all])
Inst libpam-modules (1.5.2-6+deb12u2 Debian:12.15/oldstable [amd64])
Inst libpam0g (1.5.2-6+deb12u2 Debian:12.15/oldstable [amd64])
Inst libllvm14 (1:14.0.6-12 Debian:12.15/oldstable [amd64])
Inst postgresql-client-common (248+deb12u2 Debian-Security:12/oldstable-security [all])
Inst postgresql-client-15 (15.20-0+deb12u1 Debian-Security:12/oldstable-security [amd64])
Inst postgresql-15 (15.20-0+deb12u1 Debian-Security:12/oldstable-security [amd64])
Inst postgresql (15+248+deb12u2 Debian-Security:12/oldstable-security [all])
Conf postgresql-15 (15.20-0+deb12u1 Debian-Security:12/oldstable-security [amd64])
`
	assert.Equal(t, []string{"libc6", "zlib1g", "libpam0g", "postgresql-client-15", "postgresql-15"}, serverPackages(simulation))
}
