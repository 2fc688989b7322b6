//! Devices that send without the kernel's network stack.

use std::fs;
use std::path::Path;

/// Drivers that hand a device to a program or to a virtual machine.
const HANDED_OVER: [&str; 3] = ["igb_uio", "uio_pci_generic", "vfio-pci"];
/// First digits of the PCI class of network controllers.
const NETWORK: &str = "0x02";
/// Entries of a directory read at most.
const MOST: usize = 1_024;

/// Network cards that are not the kernel's, and devices for remote memory.
pub(super) fn beside_the_kernel() -> Vec<String> {
    beneath(Path::new("/sys"))
}

fn beneath(sys: &Path) -> Vec<String> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(MOST);
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut gaps = Vec::new();
    for driver in HANDED_OVER {
        let dir = sys.join("bus/pci/drivers").join(driver);
        for address in names(&dir) {
            let class = fs::read_to_string(dir.join(&address).join("class")).unwrap_or_default();
            if class.starts_with(NETWORK) {
                gaps.push(format!("user_space_nic:{address}"));
            }
        }
    }
    gaps.extend(names(&sys.join("class/infiniband")).iter().map(|name| format!("rdma:{name}")));
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_a_program_drives_is_named_and_a_disk_is_not() {
        let sys = tempfile::tempdir().unwrap();
        let driver = sys.path().join("bus/pci/drivers/vfio-pci");
        for (address, class) in [("0000:00:04.0", "0x020000\n"), ("0000:00:05.0", "0x010802\n")] {
            fs::create_dir_all(driver.join(address)).unwrap();
            fs::write(driver.join(address).join("class"), class).unwrap();
        }
        fs::create_dir_all(sys.path().join("class/infiniband/mlx5_0")).unwrap();
        assert_eq!(beneath(sys.path()), ["user_space_nic:0000:00:04.0", "rdma:mlx5_0"]);
    }
}
